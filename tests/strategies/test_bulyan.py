"""Bulyan against hand-worked numbers and a naive twin."""

import numpy as np
import pytest

from fedmia.errors import ConfigError
from strategies.bulyan import Bulyan, around_median, selected
from tests.strategies.central_rounds import fed_avg
from tests.strategies.rounds_of import updates_of


def naive(rows, f):
    rows = [np.asarray(row, np.float64) for row in rows]
    n = len(rows)
    left, chosen = list(rows), []
    while len(chosen) < n - 2 * f:
        scored = []
        for i, row in enumerate(left):
            apart = sorted(((row - r) ** 2).sum() for j, r in enumerate(left) if j != i)
            scored.append(sum(apart[: max(len(left) - f - 2, 1)]))
        chosen.append(left.pop(int(np.argmin(scored))))
    chosen = np.array(chosen)
    median = np.median(chosen, axis=0)
    nearest = np.argsort(np.abs(chosen - median), axis=0)[: n - 4 * f]
    return np.take_along_axis(chosen, nearest, axis=0).mean(axis=0)


def test_krum_is_asked_again_after_each_choice():
    # n=7, f=1: 4 neighbours at first. Scores of 0..5 and 50: 2 has 1+1+4+4, the least; without
    # it 3 neighbours: 3 has 1+4+4; without both 1 has 1+9+16 and 4 has 1+9+16: the first.
    points = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 50.0])
    order = selected((points[:, None] - points) ** 2, 5, 1)
    assert order[:3].tolist() == [2, 3, 1]
    assert 6 not in order


def test_the_values_closest_to_the_median_are_averaged_by_coordinate():
    rows = np.float32([[0, 9], [1, 1], [2, 2], [4, 3], [10, 0]])
    # medians 2 and 2; the three closest are 1, 2, (0 or 4 at equal distance: the lower) and 1, 2, 3
    np.testing.assert_allclose(around_median(rows, 3), [1.0, 2.0])
    np.testing.assert_allclose(around_median(rows, 1), [2.0, 2.0])
    np.testing.assert_allclose(around_median(rows, 5), rows.mean(axis=0))


@pytest.mark.parametrize(("n", "f"), [(7, 1), (11, 2), (12, 2), (5, 0), (16, 3)])
def test_as_a_naive_twin(n, f):
    rows = np.random.default_rng(n).normal(size=(n, 9000))  # more than two blocks
    found = Bulyan(fed_avg(), byzantine=f).combine(updates_of(rows))
    np.testing.assert_allclose(found, naive(updates_of(rows).matrix, f), rtol=1e-4, atol=2e-5)


def test_one_coordinate_cannot_be_moved_by_an_update_close_to_the_others():
    # What Krum lets pass: far away in one coordinate of many.
    rows = np.random.default_rng(2).normal(size=(11, 2000))
    rows[:2] = rows[2:].mean(axis=0)
    rows[:2, 7] = 40.0
    found = Bulyan(fed_avg(), byzantine=2).combine(updates_of(rows))
    assert abs(found[7]) < 3


def test_f_that_is_too_large_is_refused():
    Bulyan(fed_avg(), byzantine=1).check_asked(7)
    line = r"byzantine=2: expected at most 1: Bulyan needs 4·byzantine \+ 3 .*, 10 are asked"
    with pytest.raises(ConfigError, match=line):
        Bulyan(fed_avg(), byzantine=2).check_asked(10)
    with pytest.raises(ConfigError, match="byzantine=-1: expected at least 0"):
        Bulyan(fed_avg(), byzantine=-1)
