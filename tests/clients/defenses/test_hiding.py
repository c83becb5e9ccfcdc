"""A server gets hidden updates and fixed phrases: no answer in the open, no value in an error."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from clients.defenses.additive_sharing import AdditiveSharing
from clients.defenses.hiding import contribution, discreet, expect_round
from clients.defenses.homomorphic import Homomorphic
from clients.defenses.secagg_plus import SecAggPlus
from clients.honest import DroppedOutError
from fedmia.arrays import to_record
from fedmia.observe import ABSENT
from fedmia.records import PAYLOAD
from fedmia.secagg.cohort import Cohort
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.protocol import Protocol
from fedmia.secagg.wire import RECORD

MODEL = {"w": np.zeros(3, np.float32)}
MODS = {SecAggPlus: Protocol(4), Homomorphic: Cohort(4), AdditiveSharing: Cohort(4)}


@pytest.fixture(autouse=True)
def _identity():
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def ask(**records):
    return Message(RecordDict({"arrays": to_record(MODEL), **records}), 7, "train")


def context():
    return Context(1, 7, {"partition-id": 0}, RecordDict(), {})


def answers(after=(0.5, -0.5, 0.0), **metrics):
    def train(message, context):
        model = {"w": np.array(after, np.float32)}
        content = RecordDict({"arrays": to_record(model), "metrics": MetricRecord(metrics)})
        return Message(content, reply_to=message)

    return train


def refusal(train, max_weight=50):
    with pytest.raises(ProtocolError) as caught:
        contribution(ask(), context(), train, max_weight)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


@pytest.mark.parametrize("mod", MODS)
@pytest.mark.parametrize("kind", ["evaluate", "evaluate.other", "query", "query.other"])
def test_what_would_be_answered_in_the_open_is_refused(mod, kind):
    with pytest.raises(ProtocolError, match=f"^{kind.removesuffix('.other')}.*: refused"):
        mod(MODS[mod])(Message(RecordDict(), 7, kind), context(), None)


@pytest.mark.parametrize("mod", MODS)
def test_evaluation_passes_where_it_is_allowed_and_other_queries_still_do_not(mod):
    allowing = mod(MODS[mod], allow_evaluation=True)
    for kind in ("evaluate", "query.partition"):
        message = Message(RecordDict(), 7, kind)
        assert allowing(message, context(), lambda m, c: m) is message
    with pytest.raises(ProtocolError, match=r"^query\.other: refused"):
        allowing(Message(RecordDict(), 7, "query.other"), context(), None)


@pytest.mark.parametrize("mod", [SecAggPlus, AdditiveSharing])
def test_a_query_of_another_protocol_is_refused(mod):
    with pytest.raises(ProtocolError, match="homomorphic_decrypt: refused"):
        mod(MODS[mod])(Message(RecordDict(), 7, "query.homomorphic_decrypt"), context(), None)


def test_settings_state_the_round_of_the_protocol_and_no_other():
    def stating(*rounds):
        return {f"config{k}": ConfigRecord({"server-round": r}) for k, r in enumerate(rounds)}

    expect_round(ask(**stating(3)), 3)
    expect_round(ask(**stating(3), more=ConfigRecord({"lr": 0.1})), 3)
    own = {RECORD: ConfigRecord({"server-round": 3})}
    for records in ({}, own, stating(2), stating(3, 2), stating("3"), stating(3.0), stating([3])):
        with pytest.raises(ProtocolError, match=r"^server-round: expected 3, the round of"):
            expect_round(ask(**records), 3)


def test_what_came_of_training_is_the_update_with_its_weight_and_metrics():
    given = {"num-examples": 50, "loss": 1.5}
    found = contribution(ask(), context(), answers(**given), 50)
    assert found.delta["w"].tolist() == [0.5, -0.5, 0.0]
    assert (found.metrics, found.weight) == ({"loss": 1.5}, 50)
    assert contribution(ask(), context(), answers(**given), 1).weight == 50  # all count the same


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (answers(**{"num-examples": 51}), "the number of examples is beyond max_weight"),
        (answers(**{"num-examples": 0}), "the number of examples is less than 1"),
        (answers((np.nan, 0, 0)), "the update is not finite"),
        (answers((0, np.inf, -np.inf)), "the update is not finite"),
        (answers(loss=np.nan), "a metric is not finite"),
        (answers(**{"num-examples": np.inf}), "a metric is not finite"),
        (answers(secret=[1.0]), "a metric is not a number, to be summed"),
        (answers((1, 2)), "the answer to training is malformed: ValueError"),
    ],
)
def test_what_cannot_be_summed_is_told_in_a_fixed_phrase(train, said):
    assert refusal(train) == said


def test_the_bytes_of_a_compressed_update_are_no_metric_of_the_words():
    found = contribution(ask(), context(), answers(**{"num-examples": 5, PAYLOAD: 900}), 50)
    assert found.metrics == {}


def test_of_an_error_of_the_training_only_the_type_is_told(caplog):
    def train(message, context):
        raise KeyError("patient 4711")

    assert refusal(train) == "the training failed: KeyError"
    assert "patient 4711" in caplog.text

    def replies(message, context):
        return Message(Error(5, "patient 0815"), reply_to=message)

    assert refusal(replies) == "the training failed: error 5"
    assert "patient 0815" in caplog.text


def test_who_is_away_on_purpose_is_still_known_as_such():
    def train(message, context):
        raise DroppedOutError("away in this round")

    assert ABSENT in refusal(train)


def test_nothing_changes_where_nothing_fails():
    with discreet("never said"):
        found = 1
    assert found == 1
