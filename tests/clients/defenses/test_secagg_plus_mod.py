"""The client's side of secure aggregation in Flower's messages: one answer each, in its turn."""

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from clients.defenses.secagg_plus import SecAggPlus
from fedmia.records import MASKED, WORDS
from fedmia.secagg.combiner import Execution
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.party import Peer, Secrets
from fedmia.secagg.protocol import Protocol
from fedmia.secagg.wire import CONSISTENCY, KEYS, RECORD, SHARES, UNMASK, question, told

NODES = (3, 5, 8, 13)
PROTOCOL = Protocol(4, neighbors=3, threshold=2, max_weight=50)
MODEL = np.linspace(-1, 1, 500, dtype=np.float32)


@pytest.fixture(autouse=True)
def _identity():
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def trains(metrics=None, step=0.01):
    """Return what stands behind the mod: it moves every coordinate by the same step."""

    def train(message, context):
        assert RECORD not in message.content
        values = message.content["arrays"]["w"].numpy() + np.float32(step)
        told_ = {"num-examples": 20, "loss": 1.5} if metrics is None else metrics
        content = {"arrays": ArrayRecord({"w": Array(values)}), "metrics": MetricRecord(told_)}
        content["private"] = ConfigRecord({"note": "not for the server"})
        return Message(RecordDict(content), reply_to=message)

    return train


def settings(server_round):
    return ConfigRecord({"server-round": server_round, "lr": 0.1})


class Round:
    """A round of real messages to four clients, kept so that they can be sent again."""

    def __init__(self, protocol=PROTOCOL, contexts=None, server_round=1):
        self.mod = SecAggPlus(protocol)
        self.contexts = contexts or {
            n: Context(1, n, {"partition-id": k}, RecordDict(), {}) for k, n in enumerate(NODES)
        }
        self.execution, self.sent = Execution(protocol, server_round), {}

    def tell(self, to, action, **fields):
        self.sent[to, action] = {"session": self.execution.session, **fields}
        return self.repeat(to, action)

    def repeat(self, node, action):
        message = Message(RecordDict({RECORD: told(**self.sent[node, action])}), node, "query")
        return self.mod.handlers[action](message, self.contexts[node]).content[RECORD]

    def keys(self):
        number = self.execution.server_round
        heard = {n: self.tell(n, KEYS, round=number) for n in NODES}
        advertised = {n: Peer(n, 0, *(h[f] for f in Peer.KEYS)) for n, h in heard.items()}
        self.peers = self.execution.admit(advertised)

    def shares(self):
        for node, peers in self.peers.items():
            columns = {f: [getattr(p, f) for p in peers] for f in ("node", "point", *Peer.KEYS)}
            heard = self.tell(node, SHARES, **columns)
            sealed = dict(zip(heard["to"], heard["sealed"], strict=True))
            self.execution.take_shares(node, sealed, heard["commitment"])

    def train(self, node, behind=None, stated=None):
        inbound = self.execution.inbound()[node]
        record = told(
            session=self.execution.session, **{"from": [*inbound]}, sealed=[*inbound.values()]
        )
        stated = self.execution.server_round if stated is None else stated
        content = {"arrays": ArrayRecord({"w": Array(MODEL)}), "config": settings(stated)}
        message = Message(RecordDict({**content, RECORD: record}), node, "train")
        return self.mod(message, self.contexts[node], behind or trains())

    def unmask(self, node, survivors=NODES):
        return self.tell(node, UNMASK, survivors=[*survivors], identities=[], signatures=[])


@pytest.fixture
def masked():
    round_ = Round()
    round_.keys()
    round_.shares()
    round_.replies = {n: round_.train(n) for n in NODES}
    return round_


def test_an_answer_holds_masked_words_and_names_of_metrics_and_nothing_else(masked):
    content = masked.replies[3].content
    assert set(content) == {RECORD, MASKED, "metrics"}
    assert dict(content[RECORD]) == {"metrics": ["loss"]}
    assert len(content["metrics"]) == 0
    words = content[MASKED][WORDS].numpy()
    assert (words.shape, words.dtype) == ((503,), np.uint32)
    bits = np.unpackbits(words.view(np.uint8)).mean()
    assert abs(bits - 0.5) < 5 * 0.5 / np.sqrt(words.nbytes * 8)


def test_the_sum_of_the_answers_is_the_sum_of_what_was_encoded_once_the_masks_are_off(masked):
    total = sum(r.content[MASKED][WORDS].numpy() for r in masked.replies.values())
    own = {n: {} for n in NODES}
    for node in NODES:
        heard = masked.unmask(node)
        assert list(heard["lost"]) == []
        for owner, share in zip(heard["alive"], heard["own_shares"], strict=True):
            own[owner][node] = share
    content = {"arrays": ArrayRecord({"w": Array(MODEL)}), "config": settings(1)}
    asked = question(Message(RecordDict(content), 3, "train"))
    masked.execution.unmask(total, set(NODES), own, {}, asked)
    mean = PROTOCOL.codec.decode(total, {"w": MODEL}, ["loss"], 4)
    np.testing.assert_allclose(mean.delta["w"], 0.01, atol=PROTOCOL.codec.error_bound + 1e-7)
    assert (mean.weight, mean.metrics["loss"]) == (80, pytest.approx(1.5, abs=0.01))


def test_every_message_is_answered_once(masked):
    for action in (KEYS, SHARES):
        with pytest.raises(ProtocolError, match=r"replayed\?|expected after stage"):
            masked.repeat(3, action)
    with pytest.raises(ProtocolError, match=r"expected after stage 'shares', .* at 'masked'"):
        masked.train(3)
    masked.unmask(3)
    for again in (lambda: masked.repeat(3, UNMASK), lambda: masked.train(3)):
        with pytest.raises(ProtocolError, match="a message of another execution"):
            again()
    with pytest.raises(ProtocolError, match="round 1: expected a later one than 1"):
        masked.repeat(3, KEYS)


def test_no_message_of_an_earlier_round_is_answered_in_a_later_one(masked):
    later = Round(contexts=masked.contexts, server_round=2)
    later.keys()
    for action in (KEYS, SHARES):
        with pytest.raises(ProtocolError, match=r"replayed\?"):
            masked.repeat(3, action)
    for again in (lambda: masked.train(3), lambda: masked.unmask(3)):
        with pytest.raises(ProtocolError, match="a message of another execution"):
            again()
    later.shares()
    first, second = masked.replies[3], later.train(3)
    both = [r.content[MASKED][WORDS].numpy() for r in (first, second)]
    assert np.mean(both[0] == both[1]) < 0.05


def test_secrets_are_in_the_clients_state_alone_and_last_one_round(masked):
    known = Secrets(**dict(masked.contexts[3].state[RECORD]))
    secrets = [
        known.mask_key,
        known.share_key,
        known.own_seed,
        *known.own_shares,
        *known.key_shares,
    ]
    assert [len(s) for s in secrets] == [32] * 3 + [33] * 6
    spoken = repr([dict(m.content[RECORD]) for m in masked.replies.values()]) + repr(masked.sent)
    assert not any(repr(s)[2:-1] in spoken for s in secrets)
    masked.unmask(3)
    assert Secrets(**dict(masked.contexts[3].state[RECORD])) == Secrets(server_round=1)


def test_a_client_that_is_asked_to_sign_without_an_identity_refuses(masked):
    with pytest.raises(ProtocolError, match="asked to sign without malicious_server=true"):
        masked.tell(3, CONSISTENCY, survivors=[*NODES])


@pytest.mark.parametrize(
    "kind", ["query.partition", *(f"query.{a}" for a in SecAggPlus(PROTOCOL).handlers)]
)
def test_queries_of_the_protocol_pass_unchanged(kind):
    round_, message = Round(), Message(RecordDict(), 3, kind)
    assert round_.mod(message, round_.contexts[3], lambda m, c: (m, c)) == (
        message,
        round_.contexts[3],
    )


def test_training_outside_of_the_protocol_is_refused():
    round_ = Round()
    with pytest.raises(ProtocolError, match="without the record of the protocol"):
        round_.mod(Message(RecordDict(), 3, "train"), round_.contexts[3], trains())


@pytest.mark.parametrize("stated", [0, 2, "1", 1.0])
def test_settings_of_another_round_are_refused_before_training(stated):
    round_ = Round()
    round_.keys()
    round_.shares()
    with pytest.raises(ProtocolError, match="server-round: expected 1, the round of the protocol"):
        round_.train(3, None, stated)
    assert MASKED in round_.train(3).content


BEHIND = {
    "a list for a metric": (
        trains({"num-examples": 5, "loss": [1.0]}),
        "a metric is not a number, to be summed",
    ),
    "too many examples": (
        trains({"num-examples": 51}),
        "the number of examples is beyond max_weight",
    ),
    "no examples": (trains({"num-examples": 0}), "the number of examples is less than 1"),
    "a metric that is not finite": (
        trains({"num-examples": 5, "loss": np.inf}),
        "a metric is not finite",
    ),
    "an update that is not finite": (trains(step=np.nan), "the update is not finite"),
}


@pytest.mark.parametrize("case", BEHIND)
def test_what_cannot_be_encoded_is_not_sent(case):
    behind, said = BEHIND[case]
    round_ = Round()
    round_.keys()
    round_.shares()
    with pytest.raises(ProtocolError) as caught:
        round_.train(3, behind)
    assert str(caught.value) == said
