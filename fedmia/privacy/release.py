"""What is released with Gaussian noise, and to whose data that happens."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fedmia.errors import expect

KINDS = ("poisson", "fixed", "all")


@dataclass(frozen=True)
class Sampling:
    """Who takes part in a release.

    Parameters
    ----------
    kind
        ``poisson``: each with probability ``rate``, independently; ``fixed``: ``sample`` of
        ``population``, drawn without replacement; ``all``.
    rate
        In (0, 1].
    sample, population
        1 ≤ sample ≤ population.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    kind: str = "all"
    rate: float = 1.0
    sample: int = 0
    population: int = 0

    def __post_init__(self) -> None:
        expect(self.kind in KINDS, "kind", self.kind, f"one of {', '.join(KINDS)}")
        expect(0 < self.rate <= 1, "rate", self.rate, "in (0, 1]")
        if self.kind == "fixed":
            expect(self.population >= 1, "population", self.population, "≥ 1")
            allowed = f"in [1, population={self.population}]"
            expect(1 <= self.sample <= self.population, "sample", self.sample, allowed)

    @property
    def fraction(self) -> float:
        """The probability of a unit to take part."""
        return {"all": 1.0, "poisson": self.rate}.get(self.kind) or self.sample / self.population


@dataclass(frozen=True)
class Sampled:
    """So many Gaussian releases, each about a sample of its own.

    Parameters
    ----------
    noise_multiplier
        Standard deviation over the clip, > 0.
    sampling
        Leaves somebody out: its fraction is below 1.
    times
        How many such releases.
    """

    noise_multiplier: float
    sampling: Sampling
    times: int


@dataclass(frozen=True)
class Release:
    """Gaussian releases composed; as :func:`gaussian_release` and :func:`composed` make it.

    Parameters
    ----------
    precision
        Σ 1/z² of the releases about everybody: they are one release of multiplier 1/√precision.
        ``inf`` if a release has no noise.
    sampled
        The others, those alike together.
    """

    precision: float = 0.0
    sampled: tuple[Sampled, ...] = ()

    @property
    def noiseless(self) -> bool:
        """Whether something is released as it is."""
        return math.isinf(self.precision)

    @property
    def kinds(self) -> frozenset[str]:
        """How the releases about samples draw these."""
        return frozenset(part.sampling.kind for part in self.sampled)

    @property
    def unsampled(self) -> "Release":
        """The same releases, each about everybody: what they cost one who took part in all."""
        ours = (part.times / part.noise_multiplier**2 for part in self.sampled)
        return Release(math.fsum((self.precision, *ours)))


def gaussian_release(noise_multiplier: float, sampling: Sampling = Sampling()) -> Release:
    """Return the release of a sum with Gaussian noise.

    Parameters
    ----------
    noise_multiplier
        z = noise std / clip, in [0, ∞]; the clip bounds a unit's L2 norm. 0 is no noise at all,
        whatever the sampling; ∞ releases nothing.
    sampling
        Whose data the sum is of.

    Raises
    ------
    ConfigError
        If the multiplier is negative or not a number.
    """
    expect(noise_multiplier >= 0, "noise_multiplier", noise_multiplier, "≥ 0")
    if noise_multiplier == 0:
        return Release(precision=math.inf)
    if sampling.fraction == 1 or math.isinf(noise_multiplier):
        return Release(precision=1 / noise_multiplier**2)
    return Release(sampled=(Sampled(float(noise_multiplier), sampling, 1),))


def composed(*releases: Release, times: int = 1) -> Release:
    """Return all the releases together, ``times`` times over, e.g. the steps of DP-SGD.

    Raises
    ------
    ConfigError
        If ``times`` is negative.
    """
    expect(times >= 0, "times", times, "≥ 0")
    if times == 0:
        return Release()
    parts = (part for release in releases for part in release.sampled)
    return Release(
        precision=times * math.fsum(release.precision for release in releases),
        sampled=_together(parts, times),
    )


def _together(parts: Iterable[Sampled], times: int) -> tuple[Sampled, ...]:
    """Return the parts, those that differ in their counts alone as one."""
    counts: dict[tuple[float, Sampling], int] = {}
    for part in parts:
        key = (part.noise_multiplier, part.sampling)
        counts[key] = counts.get(key, 0) + part.times * times
    return tuple(Sampled(*key, count) for key, count in counts.items())
