"""Privacy loss distributions of Poisson-sampled Gaussian releases, by dp-accounting.

V. Doroshenko, B. Ghazi, P. Kamath, R. Kumar, P. Manurangsi, Connect the Dots: Tighter Discrete
Approximations of Privacy Loss Distributions, PoPETs 2022 (arXiv 2207.04380). The loss is put on a
grid; composition convolves. ε errs upwards.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from fedmia.privacy.cost import Neighbours
from fedmia.privacy.release import Release

_FINENESS = 0.04
"""Grid interval over the scale of one release's loss."""

_COARSEST, _FINEST = 1e-3, 1e-6


def epsilons_by_pld(
    release: Release, neighbours: Neighbours, delta: float, rounds: Sequence[int]
) -> dict[int, float]:
    """Return ε after each of these ascending, positive numbers of rounds.

    The library doubles the sensitivity by itself where units are replaced. Every number of rounds
    is reached from the one before.
    """
    interval = _interval(release)
    found, so_far, done = {}, None, 0
    for count in rounds:
        more = _composed(release, neighbours, interval, count - done)
        so_far = more if so_far is None else so_far.compose(more)
        found[count] = float(so_far.get_epsilon_for_delta(delta))
        done = count
    return found


def _interval(release: Release) -> float:
    """Return a grid interval fine enough for ε to be within 1e-3 of itself.

    The loss of a release has a standard deviation of at most about q·√(exp(1/z²) − 1), the square
    root of the χ² divergence. A grid adds to its variance less than its interval squared over 4.
    With very little noise the losses, about 1/2z², would make grids of millions of points.
    """
    variances = [
        part.times * part.sampling.fraction**2 * math.expm1(min(100, part.noise_multiplier**-2))
        for part in release.sampled
    ]
    times = sum(part.times for part in release.sampled)
    scale = math.sqrt(sum(variances) / times)
    least = min(part.noise_multiplier for part in release.sampled)
    coarsest = _COARSEST * max(1.0, 0.1 / least**2)
    return min(coarsest, max(_FINEST, _FINENESS * scale))


@lru_cache(maxsize=8)
def _composed(release: Release, neighbours: Neighbours, interval: float, rounds: int) -> Any:
    """Return the privacy loss distribution of so many rounds."""
    total = None
    for z, rate, times in _gaussians(release, rounds):
        one = _one(z, rate, neighbours, interval)
        part = one.self_compose(times) if times > 1 else one
        total = part if total is None else total.compose(part)
    return total


def _gaussians(release: Release, rounds: int) -> list[tuple[float, float, int]]:
    """Return (noise multiplier, rate, times) of what makes up so many rounds."""
    parts = [
        (part.noise_multiplier, part.sampling.fraction, part.times * rounds)
        for part in release.sampled
    ]
    if release.precision:
        parts.append((1 / math.sqrt(release.precision * rounds), 1.0, 1))
    return parts


@lru_cache(maxsize=8)
def _one(z: float, rate: float, neighbours: Neighbours, interval: float) -> Any:
    """Return the privacy loss distribution of a single release."""
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    relations = {
        Neighbours.ADD_REMOVE: NeighboringRelation.ADD_OR_REMOVE_ONE,
        Neighbours.REPLACE_ONE: NeighboringRelation.REPLACE_ONE,
    }
    return from_gaussian_mechanism(
        z,
        sampling_prob=rate,
        value_discretization_interval=interval,
        neighboring_relation=relations[neighbours],
    )
