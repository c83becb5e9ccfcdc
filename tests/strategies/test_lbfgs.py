"""L-BFGS products against the matrix that BFGS forms, and against a Hessian that is known."""

import numpy as np
import pytest

from strategies.lbfgs import hessian_products


def formed(S, Y):
    """B after the BFGS updates one by one, from σI."""
    B = np.eye(S.shape[1]) * (Y[-1] @ S[-1]) / (S[-1] @ S[-1])
    for s, y in zip(S, Y, strict=True):
        Bs = B @ s
        B = B - np.outer(Bs, Bs) / (s @ Bs) + np.outer(y, y) / (s @ y)
    return B


def pairs(m, d, sign=1.0):
    rng = np.random.default_rng(m)
    root = rng.normal(size=(d, d))
    H = sign * (root @ root.T / d + np.eye(d))
    S = rng.normal(size=(m, d))
    return H, S, S @ H, rng.normal(size=(3, d))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("m", [1, 2, 5])
def test_as_the_matrix_that_is_formed(m, sign):
    _, S, Y, V = pairs(m, 12, sign)
    np.testing.assert_allclose(hessian_products(S, Y, V), V @ formed(S, Y), rtol=1e-8, atol=1e-8)


def test_the_newest_pair_is_met_exactly():
    _, S, Y, _ = pairs(4, 30)
    np.testing.assert_allclose(hessian_products(S, Y, S[-1:]), Y[-1:], rtol=1e-8)


def test_by_hand_in_two_dimensions():
    # s = (1, 0), y = (3, 0): σ = 3, B = 3I.
    found = hessian_products(np.array([[1.0, 0]]), np.array([[3.0, 0]]), np.array([[2.0, 5.0]]))
    np.testing.assert_allclose(found, [[6.0, 15.0]])


def test_pairs_that_repeat_one_another_are_as_one():
    _, S, Y, V = pairs(1, 8)
    twice = hessian_products(np.repeat(S, 2, 0), np.repeat(Y, 2, 0), V)
    np.testing.assert_allclose(twice, hessian_products(S, Y, V), rtol=1e-6)


def test_pairs_of_very_different_sizes_are_met():
    _, S, Y, _ = pairs(3, 20)
    size = np.array([[1e-6], [1.0], [1e5]])
    np.testing.assert_allclose(
        hessian_products(S * size, Y * size, S[-1:]), Y[-1:], rtol=1e-6, atol=1e-6
    )
