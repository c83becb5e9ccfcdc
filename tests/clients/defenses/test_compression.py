"""What mods that change updates share: the rest of an answer stays as it was."""

import numpy as np
import pytest
from changing import METRICS, ask, context, identify, trains
from flwr.app import ConfigRecord, Error, Message, RecordDict

from clients.defenses.compression import corrected, drawn, remember, replaced
from fedmia.arrays import to_params
from fedmia.records import PAYLOAD

SENT = {
    "w": np.array([[1.0, -2.0], [0.5, 0.0]], np.float32),
    "seen": np.array(3, np.int64),
    "b": np.array([4.0, 4.0], np.float64),
}
MOVED = {"w": np.full((2, 2), 0.5, np.float32), "seen": 2, "b": np.array([1.0, -1.0])}


@pytest.fixture(autouse=True)
def _identity():
    identify()


def doubled(update):
    return {name: 2 * values for name, values in update.items()}, 10


def test_the_update_is_replaced_and_everything_else_stays():
    def train(message, context):
        reply = trains(MOVED, SENT)(message, context)
        reply.content["more"] = ConfigRecord({"kept": 1})
        return reply

    reply = replaced(ask(SENT), context(), train, doubled)

    found = to_params(reply.content["arrays"])
    assert list(found) == list(SENT)
    assert {name: values.dtype for name, values in found.items()} == {
        name: values.dtype for name, values in SENT.items()
    }
    assert found["w"].tolist() == [[2.0, -1.0], [1.5, 1.0]]
    assert found["b"].tolist() == [6.0, 2.0]
    assert found["seen"] == 5  # a counter is the client's own
    assert dict(reply.content["metrics"]) == {**METRICS, PAYLOAD: 10 + 8}
    assert reply.content["more"]["kept"] == 1


def test_coordinates_that_are_not_sent_come_back_exactly():
    sent = {"w": np.random.default_rng(0).normal(size=1000).astype(np.float32)}
    moved = {"w": np.full(1000, 0.1, np.float32)}
    reply = replaced(
        ask(sent), context(), trains(moved, sent), lambda u: ({"w": np.zeros(1000, np.float32)}, 0)
    )
    assert np.array_equal(to_params(reply.content["arrays"])["w"], sent["w"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_update_that_is_not_finite_leaves_as_it_is_for_the_server_to_see(value):
    def never(update):
        raise AssertionError

    sent = {"w": np.zeros(3, np.float32)}
    reply = replaced(ask(sent), context(), trains({"w": np.array([1, value, 2])}, sent), never)
    assert np.array_equal(
        to_params(reply.content["arrays"])["w"], np.float32([1, value, 2]), equal_nan=True
    )
    assert reply.content["metrics"][PAYLOAD] == 12


def test_errors_and_other_messages_pass():
    def fails(message, context):
        return Message(Error(0, "no power"), reply_to=message)

    reply = replaced(ask(SENT), context(), fails, doubled)
    assert reply.has_error()

    def evaluates(message, context):
        return Message(RecordDict({"m": ConfigRecord({"a": 1})}), reply_to=message)

    reply = replaced(ask(SENT, kind="evaluate"), context(), evaluates, doubled)
    assert list(reply.content) == ["m"]


def test_what_is_left_out_is_in_the_next_update():
    where = context()
    update = {"w": np.array([1.0, 2.0], np.float32)}
    assert corrected("x", where, update)["w"].tolist() == [1.0, 2.0]
    remember("x", where, update, {"w": np.array([1.0, 0.5], np.float32)})
    later = corrected("x", where, {"w": np.array([10.0, 10.0], np.float32)})
    assert later["w"].tolist() == [10.0, 11.5]


def test_draws_are_those_of_one_client_in_one_round():
    def first(seed=0, purpose="p", server_round=1, client=0):
        return drawn(seed, purpose, ask(SENT, server_round), context(client)).random()

    assert first() == first()
    others = {first(seed=1), first(purpose="q"), first(server_round=2), first(client=1)}
    assert len(others | {first()}) == 5
