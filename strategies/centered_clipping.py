"""Centered clipping: momenta of clients, clipped around the last aggregate.

S. P. Karimireddy, L. He, M. Jaggi, "Learning from History for Byzantine Robust Optimization", ICML
2021, arXiv 2012.10333.
"""

import math
from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedmia.errors import expect
from strategies.robust import Robust
from strategies.updates import Float32, Updates


class CenteredClipping(Robust):
    """Move the last aggregate v by ``(1/n) Σ (m_i − v)·min(1, τ / ‖m_i − v‖)``, a few times.

    ``m_i ← β·m_i + (1 − β)·u_i`` is the momentum of client i's updates, its first update at first.
    The server keeps it: it sees every update, and a client that may send anything can make any
    momentum of its own either way. Without momentum (β = 0) the rule is broken by attacks that stay
    within the honest clients' spread; S. P. Karimireddy et al. show it, and for β > 0 arXiv
    2208.09894 has attacks that know the history.

    Needs fewer than half of the clients to be anything; no number of them. Two passes over the
    momenta for each iteration and two for their update; it keeps one momentum a client, n·d floats
    in float32.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates.
    momentum
        β, in [0, 1).
    radius
        τ, an L2 norm; ``None`` takes the median of ``‖m_i − v‖`` in each iteration.
    iterations
        1 to 3 in the paper.
    """

    def __init__(
        self,
        inner: Strategy,
        momentum: float = 0.9,
        radius: float | None = None,
        iterations: int = 3,
    ) -> None:
        super().__init__(inner)
        expect(0 <= momentum < 1, "momentum", momentum, "in [0, 1)")
        allowed = "null, or more than 0 and finite"
        expect(radius is None or 0 < radius < np.inf, "radius", radius, allowed)
        expect(iterations >= 1, "iterations", iterations, "at least 1")
        self.momentum, self.radius, self.iterations = momentum, radius, iterations
        self._momenta: dict[int, Float32] = {}
        self._last: Float32 | None = None

    def combine(self, updates: Updates) -> NDArray[np.floating[Any]]:
        """Return the moved aggregate, (d,)."""
        momenta = updates.matrix
        for row, node in zip(momenta, updates.nodes, strict=True):
            if (before := self._momenta.get(node)) is None:
                self._momenta[node] = row.copy()
                continue
            before *= self.momentum
            row *= 1 - self.momentum
            before += row
            row[:] = before
        v = np.zeros(momenta.shape[1], np.float32) if self._last is None else self._last
        for _ in range(self.iterations):
            v = self._moved(v, momenta)
        self._last = v
        return v

    def _moved(self, v: Float32, momenta: Float32) -> Float32:
        lengths = np.array([_length(m - v) for m in momenta])
        radius = float(np.median(lengths)) if self.radius is None else self.radius
        scale = np.minimum(
            1.0, np.divide(radius, lengths, out=np.ones_like(lengths), where=lengths > 0)
        )
        weights = (scale / len(momenta)).astype(np.float32)
        return np.asarray(v * (1 - weights.sum()) + weights @ momenta)


def _length(vector: Float32) -> float:
    return math.sqrt(float(np.dot(vector, vector)))
