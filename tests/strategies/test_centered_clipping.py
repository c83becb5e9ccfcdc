"""Centered clipping against hand-worked rounds, and what momentum is for."""

import numpy as np
import pytest

from fedmia.errors import ConfigError
from strategies.centered_clipping import CenteredClipping
from tests.strategies.central_rounds import fed_avg
from tests.strategies.rounds_of import updates_of


def rule(**settings):
    return CenteredClipping(fed_avg(), **settings)


def test_one_iteration_by_hand():
    # v = 0, τ = 2: lengths 1, 5, 2: (1 + 2 + (-2)) / 3.
    found = rule(radius=2.0, iterations=1).combine(updates_of([[1.0], [5.0], [-2.0]]))
    np.testing.assert_allclose(found, [1 / 3], rtol=1e-6)


def test_the_next_iteration_clips_around_the_last():
    # v = 1/3; differences 2/3, 14/3 (clipped to 2), -7/3 (clipped to -2): 1/3 + (2/3)/3.
    found = rule(radius=2.0, iterations=2).combine(updates_of([[1.0], [5.0], [-2.0]]))
    np.testing.assert_allclose(found, [1 / 3 + 2 / 9], rtol=1e-6)


def test_momenta_of_two_rounds_by_hand():
    strategy = rule(momentum=0.5, radius=1e9, iterations=1)
    np.testing.assert_allclose(strategy.combine(updates_of([[2.0], [4.0]])), [3.0])
    # momenta 0.5·2 + 0.5·6 = 4 and 0.5·4 + 0.5·0 = 2
    np.testing.assert_allclose(strategy.combine(updates_of([[6.0], [0.0]])), [3.0])
    # a client that is away keeps its momentum, 4; back with 0 it has 2, a new one its update
    strategy.combine(updates_of([[2.0]], nodes=[11]))
    found = strategy.combine(updates_of([[0.0], [8.0]], nodes=[10, 12]))
    np.testing.assert_allclose(found, [(2 + 8) / 2])


def test_the_median_distance_is_the_radius_where_none_is_given():
    # v = 0, lengths 1, 2, 9: τ = 2: (1 + 2 + 2) / 3.
    found = rule(iterations=1).combine(updates_of([[1.0], [2.0], [9.0]]))
    np.testing.assert_allclose(found, [5 / 3], rtol=1e-6)


def test_an_outlier_moves_the_aggregate_by_no_more_than_the_radius_over_n():
    rows = np.zeros((10, 30))
    rows[0] = 1e12
    found = rule(radius=1.0, iterations=3).combine(updates_of(rows))
    assert np.linalg.norm(found) <= 3 * 0.1 + 1e-6


def test_small_steady_bias_hides_in_the_spread_without_momentum_and_less_with_it():
    # Attackers hide at one standard deviation of the honest updates. Momentum shrinks the spread
    # in which they hide, and with it the radius and their pull.
    def bias(momentum):
        rng, strategy = np.random.default_rng(0), rule(momentum=momentum, iterations=1)
        moved = []
        for number in range(1, 61):
            rows = rng.normal(size=(10, 200))
            rows[:3] = -1.0  # of norm √200, as the others
            moved.append(strategy.combine(updates_of(rows, number)).mean())
        return -np.mean(moved[20:])

    assert bias(0.9) < 0.75 * bias(0.0)


@pytest.mark.parametrize(
    ("key", "value"), [("momentum", 1.0), ("momentum", -0.1), ("radius", 0.0), ("iterations", 0)]
)
def test_a_value_out_of_range_is_refused(key, value):
    with pytest.raises(ConfigError, match=f"^{key}={value}: expected"):
        rule(**{key: value})
