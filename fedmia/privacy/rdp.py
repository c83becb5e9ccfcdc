"""Rényi divergences of sampled Gaussian releases, and the ε that follows, by dp-accounting.

Poisson's: I. Mironov, K. Talwar, L. Zhang, Rényi Differential Privacy of the Sampled Gaussian
Mechanism, 2019 (arXiv 1908.10530). Fixed sizes: Y.-X. Wang, B. Balle, S. Kasiviswanathan, AISTATS
2019 (arXiv 1808.00087), Theorem 27. The library leaves the doubled sensitivity of replaced units
to who asks; here it is ``sigma`` that is half as large.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedmia.privacy.release import Sampling

Floats = NDArray[np.float64]

ORDERS: Floats = np.array(
    [1 + x / 10 for x in range(1, 100)] + list(range(11, 64)) + [128.0, 256.0, 512.0, 1024.0]
)
"""α, shape (orders,): those of the library."""


def epsilon_of_divergences(divergences: Floats, delta: float, orders: Floats = ORDERS) -> float:
    """Return the ε ≥ 0 of a mechanism with these Rényi divergences, shape (orders,).

    An infinite divergence rules its order out; ``inf`` if all are.
    """
    from dp_accounting.rdp import compute_epsilon

    if np.isinf(divergences).all():
        return math.inf
    with _quiet():
        return float(compute_epsilon(orders, divergences, delta)[0])


@lru_cache(maxsize=256)
def divergences(sigma: float, sampling: Sampling) -> Floats:
    """Return one release's divergences at ``ORDERS``, shape (orders,).

    Parameters
    ----------
    sigma
        Noise over what a unit changes the sum by, > 0.
    sampling
        ``poisson``, where units are added or removed, or ``fixed``, where they are replaced.
    """
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    noise = dp_accounting.GaussianDpEvent(sigma)
    relations = dp_accounting.NeighboringRelation
    if sampling.kind == "poisson":
        relation = relations.ADD_OR_REMOVE_ONE
        event = dp_accounting.PoissonSampledDpEvent(sampling.rate, noise)
    else:
        relation = relations.REPLACE_ONE
        event = dp_accounting.SampledWithoutReplacementDpEvent(
            sampling.population, sampling.sample, noise
        )
    with _quiet():
        accountant = RdpAccountant(ORDERS, relation).compose(event)
    return np.asarray(accountant.rdp, dtype=np.float64)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's warnings of orders without a finite bound, which it then leaves out."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
