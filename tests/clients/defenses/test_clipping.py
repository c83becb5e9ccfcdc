"""What leaves a clipped client keeps the bound as its receiver reads it, rounded or encoded."""

import math

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity
from torch import nn

from clients.defenses.clipping import Clipping
from clients.defenses.updates import clipped, norm, room
from fedmia.arrays import to_params, to_record
from fedmia.errors import ConfigError
from fedmia.records import difference
from fedmia.secagg.cohort import Cohort
from fedmia.secagg.protocol import Protocol

SENT = {
    "w": np.array([[1.0, -2.0], [0.5, 0.0]], np.float32),
    "seen": np.array(3, np.int64),
    "b": np.array([4.0, 4.0], np.float64),
}


@pytest.fixture(autouse=True)
def _identity():
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def ask(params=SENT, server_round=1, kind="train"):
    content = {"arrays": to_record(params), "config": ConfigRecord({"server-round": server_round})}
    return Message(RecordDict(content), 7, kind)


def context(partition_id=0):
    return Context(1, 7, {"partition-id": partition_id}, RecordDict(), {})


def trains(delta, params=SENT):
    """Answers with the model moved so far, and metrics of its records."""

    def train(message, context):
        moved = {k: (v + delta.get(k, 1)).astype(v.dtype) for k, v in params.items()}
        told = MetricRecord({"num-examples": 20, "train-loss": 0.25})
        content = {"arrays": to_record(moved), "metrics": told, "more": ConfigRecord({"secret": 1})}
        return Message(RecordDict(content), reply_to=message)

    return train


def read(reply, params=SENT):
    """The update as strategies and observers read it."""
    return difference(to_params(reply.content["arrays"]), params)


def size(delta):
    parts = [v.astype(np.float64).ravel() for v in delta.values() if v.dtype.kind == "f"]
    return float(np.linalg.norm(np.concatenate(parts)))


def vector_model(d, rng, scale=1.0):
    return {"w": (scale * rng.normal(size=d)).astype(np.float32)}


def test_a_long_update_is_scaled_to_the_bound_by_hand():
    delta = {"w": np.array([[3.0, 0.0], [0.0, 0.0]]), "b": np.array([0.0, 4.0])}
    found = read(Clipping(1.0)(ask(), context(), trains(delta)))
    assert found["w"] == pytest.approx(np.array([[0.6, 0.0], [0.0, 0.0]]), abs=1e-6)
    assert found["b"] == pytest.approx(np.array([0.0, 0.8]), abs=1e-6)


def test_each_array_gets_an_equal_part_per_layer():
    delta = {"w": np.array([[3.0, 0.0], [0.0, 0.0]]), "b": np.array([0.0, 0.25])}
    found = read(Clipping(1.0, "per_layer")(ask(), context(), trains(delta)))
    assert found["w"][0, 0] == pytest.approx(1 / math.sqrt(2), abs=1e-6)
    assert found["b"].tolist() == [0.0, 0.25]  # within its own bound, and not scaled


def test_a_short_update_and_a_zero_update_leave_as_they_are():
    short = {"w": np.array([[0.25, 0.0], [0.0, -0.5]]), "b": np.zeros(2)}
    for delta in (short, {"w": np.zeros((2, 2)), "b": np.zeros(2)}):
        found = read(Clipping(1.0)(ask(), context(), trains(delta)))
        assert all(np.array_equal(found[k], delta[k]) for k in delta)


def test_nothing_of_the_client_leaves_beside_the_update():
    reply = Clipping(1.0)(ask(), context(), trains({}))
    assert set(reply.content) == {"arrays", "metrics"}
    assert dict(reply.content["metrics"]) == {"num-examples": 1}
    assert list(to_params(reply.content["arrays"])) == list(SENT)
    assert to_params(reply.content["arrays"])["seen"] == SENT["seen"]  # a counter tells of records


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_update_that_is_read_in_float32_never_exceeds_the_bound(scale):
    rng = np.random.default_rng(0)
    for d in (1, 2, 1000, 50_000):
        sent = vector_model(d, rng, scale)
        for delta in (rng.normal(size=d), np.ones(d), -sent["w"].astype(float), np.eye(1, d)[0]):
            long = {"w": delta * (50 / np.linalg.norm(delta))}
            reply = Clipping(1.0)(ask(sent), context(), trains(long, sent))
            found = size(read(reply, sent))
            # Where the model is large beside the bound, rounding towards it shortens the update.
            assert found <= 1.0
            lattice = 2.0**-24 * math.sqrt(d)
            assert found > 1 - 1e-6 - lattice - 2.0**-22 * scale * math.sqrt(d) * 5


def test_updates_near_the_ends_of_the_number_range_are_clipped():
    for values in ([3e38, -3e38], [1e-45, 0.0]):
        update = {"w": np.array(values, np.float64)}
        assert norm(clipped(update, 0.5)) == pytest.approx(min(0.5, values[0]), rel=1e-6)
    huge = clipped({"w": np.full(4, 1e200)}, 1.0)
    assert norm(huge) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_of_an_update_that_is_not_finite_nothing_is_sent(value, caplog):
    delta = {"w": np.array([[value, 1.0], [0.0, 0.0]]), "b": np.ones(2)}
    found = read(Clipping(1.0)(ask(), context(), trains(delta)))
    assert size(found) == 0
    assert "not finite" in caplog.text


def test_other_messages_errors_and_exceptions_pass():
    asked = ask(kind="query.partition")
    assert Clipping(1.0)(asked, context(), lambda m, c: m) is asked

    def fails(message, context):
        return Message(Error(5, "away"), reply_to=message)

    reply = Clipping(1.0)(ask(), context(), fails)
    assert (reply.error.code, reply.error.reason) == (5, "away")

    def raises(message, context):
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        Clipping(1.0)(ask(), context(), raises)


# encoded afterwards


def adversarial(d, step, bound, rng):
    """Updates that rounding to the grid lengthens most, and random ones."""
    yield np.full(d, 0.5000001 * step)
    yield np.full(d, -1.5000001 * step)
    yield np.where(np.arange(d) % 2, 0.51, 1.51) * step
    yield np.concatenate([[bound], np.full(d - 1, 0.51 * step)])
    yield rng.normal(size=d)
    yield 1e6 * rng.standard_cauchy(d)


@pytest.mark.parametrize("clipping", ["flat", "per_layer"])
@pytest.mark.parametrize(("bits", "bound"), [(16, 1.0), (8, 1.0), (12, 0.1), (24, 5.0)])
def test_the_words_under_secure_aggregation_keep_the_bound(bits, bound, clipping):
    rng = np.random.default_rng(bits)
    protocol = Protocol(4, bits=bits, max_weight=1)
    codec, d = protocol.codec, 300
    mod = Clipping(bound, clipping, protocol)
    step = codec.clip / codec.levels
    longest = 0.0
    for delta in adversarial(2 * d, step, bound, rng):
        for scale in (1.0, 50 / np.linalg.norm(delta)):
            sent = {"a": np.zeros(d, np.float32), "b": np.ones(d, np.float32)}
            moved = {"a": scale * delta[:d], "b": scale * delta[d:]}
            reply = mod(ask(sent), context(), trains(moved, sent))
            words = codec.encode(read(reply, sent), {}, 1)
            found = codec.decode(words, sent, [], 1).delta
            exact = codec.signed(words)[:-2].astype(np.float64) * step
            longest = max(longest, float(np.linalg.norm(exact)))
            if clipping == "per_layer":
                assert all(
                    np.linalg.norm(v) <= bound / math.sqrt(2) * 1.0000002 for v in found.values()
                )
    assert longest <= bound
    assert longest > 0.5 * bound


def test_without_the_protocol_in_mind_rounding_would_exceed_the_bound():
    codec = Protocol(4, bits=8, max_weight=1).codec
    sent, step = {"w": np.zeros(300, np.float32)}, codec.clip / codec.levels
    delta = {"w": np.full(300, 0.51 * step)}
    bound = norm(delta)
    reply = Clipping(bound)(ask(sent), context(), trains(delta, sent))
    found = codec.decode(codec.encode(read(reply, sent), {}, 1), sent, [], 1).delta
    assert size(found) > 1.5 * bound


def test_a_grid_too_coarse_for_the_bound_is_refused_with_the_bits_it_takes():
    model = nn.Linear(100, 100)
    with pytest.raises(ConfigError) as caught:
        Clipping(0.1, encoded_by=Cohort(4, bits=8)).check_model(model)
    assert str(caught.value) == (
        "encoded_by.bits=8: expected at least 10, so that rounding alone cannot exceed clip=0.1"
    )
    with pytest.raises(ConfigError, match=r"^encoded_by\.bits=9: expected at least 10,"):
        Clipping(0.1, encoded_by=Cohort(4, bits=9)).check_model(model)
    Clipping(0.1, encoded_by=Cohort(4, bits=10)).check_model(model)
    Clipping(0.1).check_model(model)
    counting = nn.BatchNorm1d(3)
    assert counting.num_batches_tracked.dtype == torch.int64
    Clipping(0.1, "per_layer", Cohort(4, bits=11)).check_model(counting)
    sent = {"w": np.zeros(10_100, np.float32)}
    with pytest.raises(ConfigError, match=r"^encoded_by\.bits=8: expected at least 10"):
        Clipping(0.1, encoded_by=Cohort(4, bits=8))(ask(sent), context(), trains({}, sent))


def test_the_room_of_groups_by_hand():
    sizes, shy = {"w": 16, "b": 9}, 1 - 2.0**-22 - 5 * 2.0**-24
    assert room(sizes, 2.0) == [(["w", "b"], pytest.approx(2 * shy, rel=1e-12))]
    assert room(sizes, 2.0, "flat", 0.1) == [(["w", "b"], pytest.approx(2 * shy - 0.5))]
    bound = math.sqrt(2) * shy
    wanted = [(["w"], pytest.approx(bound - 0.4)), (["b"], pytest.approx(bound - 0.3))]
    assert room(sizes, 2.0, "per_layer", 0.1) == wanted


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"clip": 0}, "clip=0: expected more than 0 and finite"),
        ({"clip": -1.0}, "clip=-1.0: expected more than 0 and finite"),
        ({"clip": math.inf}, "clip=inf: expected more than 0 and finite"),
        ({"clip": math.nan}, "clip=nan: expected more than 0 and finite"),
        ({"clipping": "by_layer"}, "clipping=by_layer: expected flat or per_layer"),
    ],
)
def test_bounds_that_there_are_not_are_refused(settings, line):
    with pytest.raises(ConfigError) as caught:
        Clipping(**settings)
    assert str(caught.value) == line
