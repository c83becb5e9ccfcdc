"""The geometric median: known ones, a twin that reads the updates in each iteration."""

import numpy as np
import pytest

from fedmia.errors import ConfigError
from strategies.rfa import Rfa
from tests.strategies.central_rounds import fed_avg
from tests.strategies.rounds_of import updates_of


def naive(rows, iterations, smoothing):
    rows = np.asarray(rows, np.float64)
    norms = np.linalg.norm(rows, axis=1)
    centre = rows[np.argsort(norms, kind="stable")[(len(rows) - 1) // 2]]
    apart = np.linalg.norm(rows - centre, axis=1)
    z = rows[apart <= np.median(apart)].mean(axis=0)
    for _ in range(iterations):
        weights = 1 / np.maximum(np.linalg.norm(rows - z, axis=1), smoothing)
        z = weights @ rows / weights.sum()
    return z


def test_the_geometric_median_of_a_square_and_its_centre_is_the_centre():
    rows = [[0, 0], [2, 0], [0, 2], [2, 2], [1, 1]]
    found = Rfa(fed_avg(), iterations=5).combine(updates_of(rows))
    np.testing.assert_allclose(found, [1, 1], atol=1e-6)


def test_one_step_by_hand():
    # From the mean of 0 and 1, the half closest to 1: distances 1/2, 1/2, 9/2; weights 2, 2, 2/9:
    # (2 + 10/9) / (38/9) = 14/19.
    found = Rfa(fed_avg(), iterations=1).combine(updates_of([[0.0], [1.0], [5.0]]))
    np.testing.assert_allclose(found, [14 / 19], rtol=1e-5)


@pytest.mark.parametrize("iterations", [1, 3, 30])
def test_as_a_twin_that_reads_the_updates_in_each_iteration(iterations):
    rows = np.random.default_rng(0).normal(size=(12, 300)) + 3
    rows[0] *= 50
    found = Rfa(fed_avg(), iterations=iterations).combine(updates_of(rows))
    np.testing.assert_allclose(found, naive(rows, iterations, 1e-6), rtol=1e-3, atol=1e-3)


def test_a_minority_far_away_moves_it_by_no_more_than_the_others_spread():
    rows = np.random.default_rng(1).normal(size=(11, 50))
    honest = rows[5:].mean(axis=0)
    rows[:5] = 1e8
    found = Rfa(fed_avg(), iterations=10).combine(updates_of(rows))
    assert np.linalg.norm(found - honest) < 20  # the spread is √50


@pytest.mark.parametrize(
    ("key", "value"), [("iterations", 0), ("smoothing", 0.0), ("smoothing", np.inf)]
)
def test_a_value_out_of_range_is_refused(key, value):
    with pytest.raises(ConfigError, match=f"^{key}={value}: expected"):
        Rfa(fed_avg(), **{key: value})
