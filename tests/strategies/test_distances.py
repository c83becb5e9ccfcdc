"""Distances and angles against their definitions, also where one update would spoil them."""

import numpy as np
import pytest

from strategies.distances import angles, centred, inner_products, squared_distances
from tests.strategies.rounds_of import updates_of


def test_distances_of_a_right_triangle():
    found = squared_distances(inner_products(np.float32([[0, 0], [3, 0], [0, 4]])))
    np.testing.assert_allclose(found, [[0, 9, 16], [9, 0, 25], [16, 25, 0]])


def test_angles_are_those_of_the_circle_and_right_ones_with_nothing():
    rows = np.float32([[2, 0], [0, 3], [-1, 0], [1, 1], [0, 0]])
    quarter = np.pi / 4
    found = angles(inner_products(rows)) / quarter
    expected = [
        [0, 2, 4, 1, 2],
        [2, 0, 2, 1, 2],
        [4, 2, 0, 3, 2],
        [1, 1, 3, 0, 2],
        [2, 2, 2, 2, 0],
    ]
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("size", [1.0, 1e6, 1e12])
def test_distances_of_updates_that_are_much_alike_survive_a_huge_one(size):
    rng = np.random.default_rng(0)
    common = 100 * rng.normal(size=500)
    rows = common + 1e-2 * rng.normal(size=(6, 500))
    rows[0] = size * rng.normal(size=500)
    updates = updates_of(rows)
    exact = updates.matrix[1:].astype(np.float64)
    exact = ((exact[:, None] - exact) ** 2).sum(axis=2)
    centre = centred(updates)
    found = squared_distances(inner_products(updates.matrix))[1:, 1:]
    np.testing.assert_allclose(found, exact, rtol=1e-3)
    assert np.abs(centre - common).max() < 1
