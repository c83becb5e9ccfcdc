"""Canary clients send their direction and nothing else; every other client is left alone."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from clients.canaries.random_direction import RandomDirection, direction
from fedmia.arrays import to_params, to_record
from fedmia.config import compose
from fedmia.errors import ConfigError
from fedmia.grid.base import LocalGrid

CANARIES = RandomDirection(count=8, norm=2.0, num_examples=7, num_clients=10, seed=3)
SENT = {
    "w": np.ones((2, 3), np.float32),
    "steps": np.array(5),
    "b": np.full(4, -1, np.float64),
}


class Nowhere(LocalGrid):
    """Gives messages of this process an identity."""

    def execute(self, wave, timeout):
        raise AssertionError


@pytest.fixture(autouse=True)
def _identity():
    Nowhere(1, seed=0)


def ask(client, kind="train"):
    """The canary's answer, or what another client is asked."""
    content = {"model": to_record(SENT), "config": ConfigRecord({"server-round": 4})}
    message = Message(RecordDict(content), 5, kind)
    config = {"partition-id": client, "num-partitions": 10}
    context = Context(1, 5, config, RecordDict(), {})
    passed = []
    reply = CANARIES(message, context, lambda m, c: passed.append(m))
    return reply, passed


def test_directions_are_unit_vectors_of_their_own_and_repeat():
    rows = np.stack([direction(0, j, 4000) for j in range(40)])
    np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float64), axis=1), 1, rtol=1e-6)
    cosines = (rows @ rows.T)[np.triu_indices(40, 1)] * np.sqrt(4000)
    assert abs(cosines.mean()) < 0.15
    assert cosines.std() == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(direction(0, 7, 4000), rows[7])
    assert abs(direction(1, 7, 4000) @ rows[7]) < 0.1


def test_unsent_directions_follow_the_sent_ones():
    sent, unsent = CANARIES.directions(50), CANARIES.directions(50, unsent=True)
    assert sent.shape == unsent.shape == (8, 50)
    np.testing.assert_array_equal(sent[2], direction(3, 2, 50))
    np.testing.assert_array_equal(unsent[2], direction(3, 10, 50))


@pytest.mark.parametrize("client", [2, 9])
def test_the_last_clients_step_along_their_direction_over_all_floating_arrays(client):
    reply, passed = ask(client)

    assert not passed
    found = to_params(reply.content.array_records["model"])
    assert list(found) == list(SENT)
    assert found["steps"] == 5
    for name, value in SENT.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
    step = np.concatenate([(found["w"] - 1).reshape(-1), found["b"] + 1])
    np.testing.assert_allclose(step, 2 * direction(3, client - 2, 10), atol=1e-6)
    (metrics,) = reply.content.metric_records.values()
    assert dict(metrics) == {"num-examples": 7, "train-loss": 0.0}


def test_other_clients_and_queries_are_passed_on():
    for client, kind in ((1, "train"), (0, "evaluate"), (9, "query.partition")):
        reply, passed = ask(client, kind)
        assert reply is None
        assert len(passed) == 1


def test_evaluation_of_a_canary_weighs_nothing():
    reply, passed = ask(5, "evaluate")
    assert not passed
    assert reply.content.metric_records["metrics"]["num-examples"] == 0
    assert not reply.content.array_records


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        ({"count": 7}, r"count=7: expected at least 8 and at most 28 \(num_clients=30 less 2\)"),
        ({"count": 29}, "count=29: expected at least 8 and at most 28 "),
        ({"num_clients": 9}, "count=20: expected num_clients of at least 10"),
        ({"norm": 0.0}, "norm=0.0: expected more than 0"),
        ({"norm": float("inf")}, "norm=inf: expected more than 0 and finite"),
        ({"num_examples": 0}, "num_examples=0: expected null or at least 1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(bad, line):
    with pytest.raises(ConfigError, match=f"^{line}"):
        RandomDirection(**bad)


def test_without_a_number_of_examples_each_counts_one():
    assert RandomDirection().weight == 1
    assert CANARIES.weight == 7


def test_the_norm_is_the_clip_of_whoever_clips():
    plain = ["client/canaries=[random_direction]", "num_clients=30"]
    node = compose(plain).client.canaries.random_direction
    assert (node.norm, node.num_examples, node.seed) == (1.0, 20, 0)
    central = [*plain, "strategy=dp_central", "strategy.clip=0.25", "partition=iid"]
    node = compose([*central, "partition.samples_per_client=null"]).client.canaries.random_direction
    assert (node.norm, node.num_examples) == (0.25, None)
