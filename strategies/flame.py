"""FLAME: the largest cluster of directions, clipped to the median norm, with noise.

T. D. Nguyen, P. Rieger, H. Chen et al., "FLAME: Taming Backdoors in Federated Learning", USENIX
Security 2022, arXiv 2101.02281.
"""

import math
from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN

from fedmia.errors import expect
from fedmia.seeding import generator
from fedmia.suspicion import Flag
from strategies.directions import Float64, cosines, norms, unit
from strategies.robust import Robust
from strategies.updates import Updates


class Flame(Robust):
    """Keep the clients of one cluster, clip their updates to the median norm, add noise.

    - HDBSCAN on ``1 − cos(u_i, u_j)`` with clusters of at least ⌊n/2⌋ + 1 clients: there is at most
      one. Those outside are left out, and flagged.
    - ``S`` is the median norm of all n updates, ``u_i ← u_i·min(1, S/‖u_i‖)``.
    - The mean of those kept gets noise from ``N(0, (λS)²)`` in every coordinate, with λ =
      ``noise_factor``, or ``√(2 ln(1.25/δ))/ε``.

    The noise comes with no ε here: the paper argues by it that a backdoor is smoothed away, S
    depends on the clients' data, and what it bounds is not who takes part. Fewer than half of the
    clients may be anything; of honest ones that are alike up to half may be left out of a round.

    Needs three clients. Three passes over the updates, one product of n²·d multiplications, and a
    clustering in O(n²); no state.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates.
    noise_factor
        λ; ``None`` takes it from ``epsilon`` and ``delta``; 0 adds none.
    epsilon, delta
        Of the Gaussian mechanism behind λ; ``None`` with ``noise_factor``.
    seed
        The noise follows from it.
    """

    fewest = 3

    def __init__(
        self,
        inner: Strategy,
        noise_factor: float | None = 0.001,
        epsilon: float | None = None,
        delta: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(inner)
        if noise_factor is None:
            noise_factor = _factor(epsilon, delta)
        else:
            allowed = "at least 0 and finite"
            expect(0 <= noise_factor < math.inf, "noise_factor", noise_factor, allowed)
            for key, value in {"epsilon": epsilon, "delta": delta}.items():
                allowed = f"null beside noise_factor={noise_factor}"
                expect(value is None, key, value, allowed)
        self.noise_factor, self.seed = noise_factor, seed

    def check_asked(self, asked: int) -> None:
        """Refuse rounds of fewer than three clients, which have no majority."""
        share = getattr(self.inner, "fraction_train", None)
        allowed = f"so much that at least 3 clients are asked in a round, {asked} are"
        expect(asked >= 3, "inner.fraction_train", share, f"{allowed}: Flame keeps a majority")

    def combine(self, updates: Updates) -> NDArray[np.floating[Any]]:
        """Return the noisy mean of the cluster, (d,)."""
        lengths = norms(updates.matrix)
        apart = 1.0 - cosines(updates.matrix, lengths)
        kept = largest_cluster(apart)
        for i in np.flatnonzero(~kept):
            evidence = {"cosine distance to the cluster": float(apart[i, kept].mean())}
            reason = "the update's direction is outside of the largest cluster"
            self.flags.append(Flag(updates.server_round, updates.nodes[i], reason, evidence))
        median = float(np.median(lengths))
        weights = kept * np.minimum(1.0, median * unit(lengths)) / kept.sum()
        found = weights.astype(np.float32) @ updates.matrix
        rng = generator(self.seed, "flame", updates.server_round)
        return np.asarray(found + self.noise_factor * median * rng.standard_normal(len(found)))


def largest_cluster(distances: Float64) -> NDArray[np.bool_]:
    """Return which of n ≥ 2 points are in the one cluster of a majority, (n,).

    Parameters
    ----------
    distances
        Of all pairs, (n, n).
    """
    found = HDBSCAN(
        min_cluster_size=len(distances) // 2 + 1,
        min_samples=1,
        allow_single_cluster=True,
        metric="precomputed",
        copy=True,
    )
    return np.asarray(found.fit(distances).labels_ >= 0)


def _factor(epsilon: float | None, delta: float | None) -> float:
    """Return λ of the Gaussian mechanism."""
    beside = "where noise_factor=null"
    for key, value, most in (("epsilon", epsilon, math.inf), ("delta", delta, 1.0)):
        inside = value is not None and 0 < value < most
        shown = "null" if value is None else value
        expect(inside, key, shown, f"more than 0 and less than {most:g} {beside}")
    assert epsilon is not None
    assert delta is not None
    return math.sqrt(2 * math.log(1.25 / delta)) / epsilon
