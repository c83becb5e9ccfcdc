"""Products with an approximate Hessian that is never formed: L-BFGS, compactly represented."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def hessian_products(S: Float64, Y: Float64, V: Float64) -> Float64:
    """Return ``B v`` for each row of V, (k, d), with the BFGS matrix B of m pairs.

    ``B = σI − [σSᵀ Yᵀ] M⁻¹ [σS; Y]`` with ``M = [[σSSᵀ, L], [Lᵀ, −D]]``, ``SYᵀ = L + D + R``
    (below, on and above the diagonal), and ``σ`` from the newest pair, ``s·y / s·s``. Takes about
    (2m² + 4mk)·d multiplications.

    Parameters
    ----------
    S, Y
        The pairs' changes of the argument and of the gradient, (m, d), oldest first; no row of S is
        zero. Where pairs depend on one another, M is inverted as far as it can be.
    V
        (k, d).
    """
    SY = S @ Y.T
    sigma = SY[-1, -1] / (S[-1] @ S[-1])
    L = np.tril(SY, -1)
    M = np.block([[sigma * (S @ S.T), L], [L.T, -np.diag(np.diag(SY))]])
    right = np.concatenate([sigma * (S @ V.T), Y @ V.T])
    p = _solved(M, right)
    m = len(S)
    return np.asarray(sigma * V - sigma * p[:m].T @ S - p[m:].T @ Y)


def _solved(M: NDArray[Any], right: NDArray[Any]) -> Float64:
    """Return the least solution of ``M p = right``; rows and columns scaled to one size."""
    size = np.sqrt(np.abs(np.diag(M)))
    scale = np.divide(1.0, size, out=np.ones_like(size), where=size > 0)
    scaled = M * scale[:, None] * scale
    found, *_ = np.linalg.lstsq(scaled, right * scale[:, None], rcond=1e-10)
    return np.asarray(found * scale[:, None])
