"""What is read of an answer: the arrays that were sent, or one line of what is wrong with them."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from fedmia.answers import LARGEST, params_like, small, too_far
from fedmia.arrays import to_record

SENT = {"weight": np.zeros((2, 3), np.float32), "steps": np.zeros((), np.int64)}
GOOD = {"weight": np.ones((2, 3), np.float32), "steps": np.array(4)}


def answer(**changed):
    params = {k: v for k, v in (GOOD | changed).items() if v is not None}
    return RecordDict({"arrays": to_record(params), "metrics": MetricRecord()})


def foreign(**changed):
    as_sent = {
        "dtype": "float32",
        "shape": (2, 3),
        "stype": "numpy.ndarray",
        "data": Array(GOOD["weight"]).data,
    }
    arrays = {"weight": Array(**(as_sent | changed)), "steps": Array(GOOD["steps"])}
    return RecordDict({"arrays": ArrayRecord(arrays)})


def test_arrays_as_they_were_sent_are_returned_with_their_values():
    for content in (answer(), foreign()):
        found = params_like(SENT, content)
        assert set(found) == set(SENT)
        for name, value in GOOD.items():
            np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64, np.bool_])
def test_other_kinds_of_numbers_are_numbers(dtype):
    found = params_like(SENT, answer(weight=np.ones((2, 3), dtype)))
    np.testing.assert_array_equal(found["weight"], 1)


@pytest.mark.parametrize(
    "content",
    [
        answer(weight=None),
        answer(weight=np.ones((3, 2), np.float32)),
        answer(weight=np.ones((2, 3), np.complex64)),
        answer(weight=np.full((2, 3), "x")),
        answer(steps=np.datetime64("2020-01-01")),
        RecordDict({"metrics": MetricRecord()}),
        RecordDict(),
    ],
)
def test_what_is_not_as_it_was_sent_is_named(content):
    with pytest.raises(ValueError, match=r"^'(weight|steps)' is not as it was sent$"):
        params_like(SENT, content)


def test_an_array_that_was_not_sent_is_named():
    with pytest.raises(ValueError, match=r"^'more' was not sent$"):
        params_like(SENT, answer(more=np.zeros(2)))


@pytest.mark.parametrize(
    "changed",
    [
        {"data": b"rubbish"},
        {"data": b""},
        {"dtype": "nonsense"},
        {"shape": (5, 7)},
        {"data": b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4'"},
    ],
)
def test_bytes_that_are_no_array_are_one_line(changed):
    with pytest.raises(ValueError, match=r"^arrays that cannot be read|not as it was") as caught:
        params_like(SENT, foreign(**changed))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (LARGEST, ""),
        (-LARGEST, ""),
        (2 * LARGEST, "too large"),
        (-2 * LARGEST, "too large"),
        (np.nan, "not finite"),
        (-np.inf, "not finite"),
    ],
)
def test_a_change_is_small_up_to_the_largest(value, said):
    change = np.array([0.0, value, 1.0], np.float32)
    assert small(change) == (not said)
    if said:
        assert too_far(change) == said


def test_no_change_at_all_and_one_of_a_counter_are_small():
    assert small(np.zeros(0, np.float32))
    assert small(np.array([2**62]))
