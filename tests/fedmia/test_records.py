import numpy as np
import pytest

from fedmia.records import Examples, difference


def test_a_difference_is_taken_by_name_in_the_order_and_types_of_the_later_arrays():
    before = {"b": np.array([1.0], np.float32), "a": np.array(3)}
    after = {"a": np.array(5), "b": np.array([1.5], np.float32)}

    change = difference(after, before)

    assert list(change) == ["a", "b"]
    assert change["a"] == 2
    assert change["a"].shape == ()
    assert change["b"].dtype == np.float32
    assert change["b"].tolist() == [0.5]


@pytest.mark.parametrize("kind", [bool, np.float64])
def test_a_switch_that_flips_changes_by_one_and_can_be_put_back(kind):
    before = {"on": np.array([True, True, False, False]).astype(kind)}  # averages are floats
    after = {"on": np.array([True, False, True, False])}

    change = difference(after, before)["on"]

    assert change.tolist() == [0, -1, 1, 0]
    assert (before["on"] + change).astype(bool).tolist() == after["on"].tolist()


def test_examples_are_taken_by_slice_and_by_index():
    examples = Examples(np.arange(6, dtype=np.float32).reshape(3, 2), np.array([0, 1, 2]))

    assert len(examples) == 3
    assert examples[1:].x.tolist() == [[2, 3], [4, 5]]
    assert examples[np.array([2, 0])].y.tolist() == [2, 0]
