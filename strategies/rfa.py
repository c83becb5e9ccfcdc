"""RFA: the geometric median of the updates.

K. Pillutla, S. M. Kakade, Z. Harchaoui, "Robust Aggregation for Federated Learning", IEEE
Transactions on Signal Processing 2022, arXiv 1912.13445, Algorithm 2 (smoothed Weiszfeld).
"""

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedmia.errors import expect
from strategies.distances import Float64, centred, inner_products
from strategies.robust import Robust
from strategies.updates import Updates


class Rfa(Robust):
    """Return ``argmin_z Σ ‖z − u_i‖``, approximately, with equal weights.

    All iterates are means of the updates, so their distances to these follow from the inner
    products of the updates: of a round's iterations none reads the updates again. The first is the
    mean of the half closest to the update of median norm: from the mean of all, a few iterations
    would not come back from a client that is far enough away.

    Needs fewer than half of the clients to be anything; no number of them. Four passes over the
    updates, and one product of n²·d multiplications.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates.
    iterations
        R, of Weiszfeld's algorithm.
    smoothing
        ν, the smallest distance that divides.
    """

    def __init__(self, inner: Strategy, iterations: int = 10, smoothing: float = 1e-6) -> None:
        super().__init__(inner)
        expect(iterations >= 1, "iterations", iterations, "at least 1")
        expect(0 < smoothing < np.inf, "smoothing", smoothing, "more than 0 and finite")
        self.iterations, self.smoothing = iterations, smoothing

    def combine(self, updates: Updates) -> NDArray[np.floating[Any]]:
        """Return the geometric median, (d,)."""
        centre = centred(updates)
        weights = weiszfeld(inner_products(updates.matrix), self.iterations, self.smoothing)
        return np.asarray(centre + weights.astype(np.float32) @ updates.matrix)


def weiszfeld(products: Float64, iterations: int, smoothing: float) -> Float64:
    """Return the weights, (n,), of the updates in their approximate geometric median.

    Parameters
    ----------
    products
        Inner products of all pairs, (n, n), relative to an origin among the honest updates.
    iterations, smoothing
        R and ν.
    """
    lengths = np.diag(products)
    weights = (lengths <= np.median(lengths)).astype(np.float64)
    weights /= weights.sum()
    for _ in range(iterations):
        towards = products @ weights
        squares = lengths - 2 * towards + weights @ towards
        weights = 1 / np.maximum(np.sqrt(np.maximum(squares, 0.0)), smoothing)
        weights /= weights.sum()
    return weights
