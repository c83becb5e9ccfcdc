"""Answers in another form than most are found, by node, with what is wrong."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedmia.arrays import to_record
from fedmia.grid.serial import Serial
from strategies.usual_form import oddities

WEIGHED = "num-examples"


def content(arrays="arrays", name="metrics", **metrics):
    told = MetricRecord({WEIGHED: 20, "train-loss": 0.5} | metrics)
    return RecordDict({arrays: to_record({"w": np.zeros(2, np.float32)}), name: told})


def found_odd(*contents, weighted_by=WEIGHED):
    """What is wrong with answers of nodes 11, 12, …; ``None`` for an error."""

    def main(grid):
        made = []
        for node, each in enumerate(contents, 11):
            asked = Message(RecordDict(), node, "train")
            made.append(Message(Error(0, "away") if each is None else each, reply_to=asked))
        return oddities(made, weighted_by)

    return Serial().run(ClientApp, 1, 0, main)


def without_metrics():
    found = content()
    del found["metrics"]
    return found


def with_another_record():
    found = content()
    found["more"] = ConfigRecord({"a": 1})
    return found


def test_answers_that_are_alike_are_all_in_order():
    told = [content(), None, content(**{WEIGHED: 3}), content(**{"train-loss": float("nan")})]
    assert found_odd(*told) == {}
    assert found_odd() == {}


@pytest.mark.parametrize(
    "odd",
    [
        content(arrays="others"),
        content(name="others"),
        content(more=1.0),
        content(**{"train-loss": [0.5, 0.5]}),
        without_metrics(),
        with_another_record(),
        RecordDict(),
    ],
)
def test_one_in_another_form_is_found(odd):
    found = found_odd(content(), odd, content())
    assert found == {12: "its answer has other records than most"}


@pytest.mark.parametrize("weight", [0, -5, float("nan"), float("inf")])
def test_a_weight_that_cannot_be_averaged_by_is_found(weight):
    found = found_odd(content(), content(), content(**{WEIGHED: weight}))
    assert found == {13: "its num-examples is no number above 0"}


def test_where_nobody_states_a_weight_none_is_asked_for():
    assert found_odd(content(), content(), weighted_by="no-such-metric") == {}
