"""In which directions updates point: norms, and cosines of all pairs by matrix products."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.updates import Float32

Float64 = NDArray[np.float64]

_BLOCK = 8192  # coordinates whose products are added up in float32, before they go to float64


def norms(matrix: Float32) -> Float64:
    """Return the L2 norms of the rows, (n,)."""
    squares = np.zeros(len(matrix))
    for block in _blocks(matrix):
        squares += np.einsum("ij,ij->i", block, block)
    return np.asarray(np.sqrt(squares))


def unit(lengths: Float64) -> Float64:
    """Return the factors that make rows of these norms unit vectors, (n,); 0 for those of norm 0.

    A norm below 10⁻¹⁵ counts as 0: squares in float32 do not resolve it.
    """
    return np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 1e-15)


def cosines(matrix: Float32, lengths: Float64) -> Float64:
    """Return the cosines of all pairs of rows, (n, n), exactly 1 with oneself; 0 with a zero row.

    Rows are scaled block by block: no copy of the matrix is made, and none is too long.

    Parameters
    ----------
    matrix
        (n, d).
    lengths
        The norms of its rows, (n,).
    """
    scale, found = unit(lengths).astype(np.float32)[:, None], np.zeros((len(matrix),) * 2)
    for block in _blocks(matrix):
        scaled = block * scale
        found += scaled @ scaled.T
    np.clip(found, -1.0, 1.0, out=found)
    np.fill_diagonal(found, 1.0)
    return found


def cosines_with(matrix: Float32, lengths: Float64, vector: NDArray[np.floating[Any]]) -> Float64:
    """Return the cosine of each row with one vector, (n,); 0 where one of both is zero.

    Parameters
    ----------
    matrix, lengths
        (n, d), and the norms of its rows, (n,).
    vector
        (d,).
    """
    length = np.linalg.norm(vector.astype(np.float64))
    if not length:
        return np.zeros(len(matrix))
    along = matrix @ (vector / length).astype(np.float32)
    return np.asarray(np.clip(along * unit(lengths), -1.0, 1.0))


def _blocks(matrix: Float32) -> list[Float32]:
    return [matrix[:, start : start + _BLOCK] for start in range(0, matrix.shape[1], _BLOCK)]
