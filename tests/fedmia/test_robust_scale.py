"""Robust z-scores, worked out by hand."""

import numpy as np

from fedmia.robust_scale import Scale


def test_z_scores_by_median_and_median_absolute_deviation():
    # median 3, deviations 2, 1, 0, 1, 97: their median is 1
    rows = np.array([[1.0], [2.0], [3.0], [4.0], [100.0]])
    z = Scale.of(rows, floor=0.01).z(rows)
    np.testing.assert_allclose(z[:, 0], np.array([-2, -1, 0, 1, 97]) / 1.4826)


def test_the_floor_is_the_least_spread():
    rows = np.array([[0.5], [0.5], [0.5], [0.6]])
    scale = Scale.of(rows, floor=0.05)
    np.testing.assert_allclose(scale.spread, 0.05)
    np.testing.assert_allclose(scale.z(rows)[:, 0], [0, 0, 0, 2])


def test_what_is_not_known_counts_for_none_and_does_not_stand_out():
    rows = np.array([[1.0, np.nan], [2.0, np.nan], [np.nan, np.nan], [3.0, np.nan]])
    scale = Scale.of(rows, floor=0.1)
    np.testing.assert_allclose(scale.centre, [2.0, 0.0])
    np.testing.assert_allclose(scale.spread, [1.4826, 0.1])
    np.testing.assert_allclose(scale.z(rows)[:, 0], np.array([-1, 0, 0, 1]) / 1.4826)
    np.testing.assert_array_equal(scale.z(rows)[:, 1], 0.0)


def test_a_minority_moves_neither_centre_nor_spread_far():
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(1000, 3))
    mixed = np.concatenate([clean, np.full((200, 3), 1e6)])
    one, other = Scale.of(clean, 1e-3), Scale.of(mixed, 1e-3)
    np.testing.assert_allclose(one.spread, 1.0, atol=0.1)
    np.testing.assert_allclose(other.centre, one.centre, atol=0.4)
    np.testing.assert_allclose(other.spread, one.spread, rtol=0.4)
