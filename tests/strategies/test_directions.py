"""Norms and cosines in blocks against numpy on the whole matrix."""

import numpy as np

from strategies.directions import cosines, cosines_with, norms, unit

WIDE = np.random.default_rng(0).normal(size=(5, 20_000)).astype(np.float32)


def test_norms_as_those_of_numpy():
    exact = np.linalg.norm(WIDE.astype(np.float64), axis=1)
    np.testing.assert_allclose(norms(WIDE), exact, rtol=1e-6)


def test_cosines_of_all_pairs_as_a_naive_twin():
    exact = WIDE.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    found = cosines(WIDE, norms(WIDE))
    np.testing.assert_allclose(found, exact @ exact.T, atol=1e-6)
    np.testing.assert_array_equal(np.diag(found), 1.0)


def test_cosines_by_hand():
    rows = np.array([[1, 0], [0, 2], [-3, 0], [5, 5], [0, 0]], np.float32)
    found = cosines(rows, norms(rows))
    half = np.sqrt(0.5)
    np.testing.assert_allclose(found[0], [1, 0, -1, half, 0], atol=1e-7)
    np.testing.assert_allclose(
        cosines_with(rows, norms(rows), np.array([0.0, 9.0])), [0, 1, 0, half, 0], atol=1e-7
    )
    np.testing.assert_array_equal(cosines_with(rows, norms(rows), np.zeros(2)), 0)


def test_the_largest_updates_that_are_read_overflow_nothing():
    rows = np.full((3, 50_000), 1e15, np.float32)
    rows[1] *= -1
    found = cosines(rows, norms(rows))
    np.testing.assert_allclose(found, [[1, -1, 1], [-1, 1, -1], [1, -1, 1]], atol=1e-6)


def test_the_factor_of_a_zero_row_is_zero():
    np.testing.assert_array_equal(unit(np.array([2.0, 0.0])), [0.5, 0.0])
