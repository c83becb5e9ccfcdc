"""A client shares what it was asked for once, with the parties it knows."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from clients.defenses.additive_sharing import AdditiveSharing
from fedmia.arrays import to_record
from fedmia.secagg.cohort import Cohort
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.sharing import Party
from fedmia.secagg.wire import RECORD, told

MOD = AdditiveSharing(Cohort(4))
KEYS = [Party(0).key, Party(1).key]
MODEL = {"w": np.zeros(3, np.float32)}


@pytest.fixture(autouse=True)
def _identity():
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def ask(server_round=1, keys=KEYS, stated=None, **fields):
    record = {"session": bytes(16), "round": server_round, "parties": keys, **fields}
    content = RecordDict({"arrays": to_record(MODEL), RECORD: told(**record)})
    content["config"] = ConfigRecord({"server-round": server_round if stated is None else stated})
    return Message(content, 7, "train")


def fresh():
    return Context(1, 7, {"partition-id": 0}, RecordDict(), {})


def trained(message, context, metrics=None):
    assert RECORD not in message.content
    metrics = metrics or {"num-examples": 2, "train-loss": 0.5}
    after = {"w": np.full(3, 0.25, np.float32)}
    content = RecordDict({"arrays": to_record(after), "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)


def test_what_leaves_is_shares_and_the_names_of_metrics():
    reply = MOD(ask(), fresh(), trained)

    assert {*reply.content} == {"masked", RECORD, "metrics"}
    assert dict(reply.content["metrics"]) == {}
    assert {*reply.content[RECORD]} == {"metrics", "key", "sealed"}
    assert reply.content[RECORD]["metrics"] == ["train-loss"]
    assert len(reply.content[RECORD]["sealed"]) == 2


def test_settings_of_another_round_are_refused_before_training_and_do_not_count():
    context = fresh()
    with pytest.raises(ProtocolError, match="server-round: expected 2, the round of the protocol"):
        MOD(ask(2, stated=1), context, None)
    MOD(ask(1), context, trained)


@pytest.mark.parametrize("again", [0, 1])
def test_a_replayed_round_is_refused_before_training(again):
    context = fresh()
    MOD(ask(1), context, trained)

    with pytest.raises(ProtocolError, match=f"round {again}: expected a later one than 1"):
        MOD(ask(again), context, None)


def test_parties_do_not_change_between_rounds():
    context = fresh()
    MOD(ask(1), context, trained)

    MOD(ask(2), context, trained)
    with pytest.raises(ProtocolError, match="other parties than in the rounds before"):
        MOD(ask(3, [KEYS[0], Party(1).key]), context, None)


@pytest.mark.parametrize("keys", [KEYS[:1], KEYS[:1] * 2, [*KEYS, Party(2).key]])
def test_another_number_of_parties_is_refused(keys):
    with pytest.raises(ProtocolError, match="parties: expected 2, each once"):
        MOD(ask(keys=keys), fresh(), None)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"num-examples": 1001}, "the number of examples is beyond max_weight"),
        ({"num-examples": 1, "per-class": [1.0]}, "a metric is not a number"),
    ],
)
def test_what_does_not_fit_is_refused(metrics, message):
    with pytest.raises(ProtocolError, match=message):
        MOD(ask(), fresh(), lambda m, c: trained(m, c, metrics))
