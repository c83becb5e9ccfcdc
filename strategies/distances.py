"""Distances and angles between all updates of a round, by one matrix product.

A product of the updates themselves would lose what tells them apart where they are much alike, and
their mean is for one client to move. So they are taken relative to one of them, the one of median
norm: no minority can make that large, and what is left is as small as the updates differ.
"""

import numpy as np
from numpy.typing import NDArray

from strategies.updates import Float32, Updates

Float64 = NDArray[np.float64]


def centred(updates: Updates) -> Float32:
    """Subtract the update of (lower) median norm from all rows, in place, and return it, (d,)."""
    norms = updates.norms()
    middle = np.argsort(norms, kind="stable")[(len(norms) - 1) // 2]
    centre: Float32 = updates.matrix[middle].copy()
    np.subtract(updates.matrix, centre, out=updates.matrix)
    return centre


def inner_products(matrix: Float32) -> Float64:
    """Return those of all pairs of rows, (n, n)."""
    return np.asarray(matrix @ matrix.T, dtype=np.float64)


def squared_distances(products: Float64) -> Float64:
    """Return ``‖u_i − u_j‖²`` of all pairs, (n, n), from their inner products."""
    squares = np.diag(products)
    found = squares[:, None] + squares - 2 * products
    np.fill_diagonal(found, 0.0)
    return np.asarray(np.maximum(found, 0.0))


def angles(products: Float64) -> Float64:
    """Return the angles in [0, π] between all pairs, (n, n); a right one with a zero update."""
    norms = np.sqrt(np.maximum(np.diag(products), 0.0))
    scale = np.outer(norms, norms)
    cosine = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    found = np.arccos(np.clip(cosine, -1.0, 1.0))
    np.fill_diagonal(found, 0.0)
    return np.asarray(found)
