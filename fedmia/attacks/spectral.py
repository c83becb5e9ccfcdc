"""Spectral clustering of points into two parts.

J. Shi, J. Malik, "Normalized Cuts and Image Segmentation", IEEE TPAMI 22(8):888-905, 2000.
"""

import numpy as np
import torch
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def two_clusters(points: Float64, gamma: float) -> NDArray[np.bool_]:
    """Return which points (n, d) lie in one of two clusters, (n,); nowhere if all are alike.

    ``(D − W) v = λ D v`` with ``W_ij = exp(−γ‖x_i − x_j‖²)`` and its row sums on the diagonal of
    D: entries of the eigenvector v of the second smallest λ are cut where the two parts scatter
    least around their means. Costs n³.
    """
    squares = np.square(points).sum(axis=1)
    distances = squares[:, None] + squares - 2 * points @ points.T
    W = np.exp(-gamma * np.maximum(distances, 0))
    root = np.sqrt(W.sum(axis=1))
    # (D − W) v = λ D v  ⇔  D^−½ W D^−½ u = (1 − λ) u  with  v = D^−½ u
    _, u = torch.linalg.eigh(torch.from_numpy(W / root[:, None] / root))
    return halves(u[:, -2].numpy() / root if len(points) > 1 else np.zeros(len(points)))


def halves(v: Float64) -> NDArray[np.bool_]:
    """Return which numbers (n,) lie above the cut that makes two parts scatter least, (n,)."""
    order = np.sort(v)
    cuts = np.flatnonzero(np.diff(order) > 0) + 1
    if len(cuts) == 0:
        return np.zeros(len(v), dtype=np.bool_)
    below = np.cumsum(order - order.mean())[cuts - 1]
    between = below**2 / cuts + below**2 / (len(v) - cuts)
    return np.asarray(v >= order[cuts[np.argmax(between)]])
