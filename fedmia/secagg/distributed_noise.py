"""Differential privacy under the mask: every client adds a share of the noise of the sum.

P. Kairouz, Z. Liu, T. Steinke, The Distributed Discrete Gaussian Mechanism for Federated Learning
with Secure Aggregation, ICML 2021 (arXiv 2102.06387), Algorithms 1 and 2; with Skellam noise:
N. Agarwal, P. Kairouz, Z. Liu, NeurIPS 2021 (arXiv 2110.04995). A client clips, rotates, divides
by the granularity γ, rounds conditionally and adds integer noise; the server, which sees the sum
alone, multiplies by γ and rotates back.

The granularity is the finest at which the sum keeps to ±M, M = 2^(bits − 1) − 1. Of n clients
with d rotated coordinates each, a coordinate of the sum has, in units of γ,

    signal and noise   sub-Gaussian with variance s² = n²c²/(γ²d) + (n/m)(zc/γ)²
    rounding           less than n in absolute value, always

where m is ``min_survivors`` and z the noise multiplier. The paper's k standard deviations of it,
k·s + n = M, give γ; here k is not a choice but follows from the probability of a wrap-around. With
t = k/s and cosh t − 1 ≤ (t²/2)exp(t²/12), a Chernoff bound holds for both laws,

    P(some coordinate wraps) ≤ 2d exp(−k²(1 − exp(k²/12s²)/2)) ≤ 2d exp(−k²/2.02)   if s ≥ 4k.

A wrap-around spoils the sum's accuracy, not its privacy.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedmia.errors import expect
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.rotation import padded_length, rotate, unrotate
from fedmia.secagg.rounding import round_conditionally, squared_norm_bound
from fedmia.secagg.sampling import DiscreteGaussian, IntegerNoise, Skellam
from fedmia.secagg.stream import Stream, fresh_stream

Mechanism = Literal["discrete_gaussian", "skellam"]

_LAWS: dict[str, type[IntegerNoise]] = {"discrete_gaussian": DiscreteGaussian, "skellam": Skellam}

_FINEST = 2**14
"""Granules in a share's σ beyond which a finer grid gains nothing but a larger sampling table."""

_LARGEST = 2**30
"""Granules in the clip, so that a squared norm stays below 2**62."""


@dataclass(frozen=True)
class NoiseStatement:
    """What an accountant needs to know of one round's sum; all norms and variances in granules.

    Parameters
    ----------
    mechanism
        Law of a client's share of the noise.
    l2_sensitivity, l1_sensitivity
        Largest change of the sum when one client's whole update is added or removed.
    variance_of_sum
        σ² of the noise of ``survivors`` shares together, exact; each share has an equal part.
    granularity
        γ, the length of a granule in the unit of the updates.
    survivors
        Fewest honest clients whose noise is in the sum.
    dimension
        d, the coordinates of the rotated update.
    claims
        What the numbers hold for, and what they do not, one sentence each.
    """

    mechanism: Mechanism
    l2_sensitivity: float
    l1_sensitivity: float
    variance_of_sum: Fraction
    granularity: float
    survivors: int
    dimension: int
    claims: tuple[str, ...]


@dataclass(frozen=True)
class DistributedNoise:
    """Encodes a client's update with its share of the noise, and decodes the sum.

    Parameters
    ----------
    mechanism
        ``discrete_gaussian`` or ``skellam``.
    clip
        c, the bound on a client's update in L2 norm, in the unit of the updates.
    noise_multiplier
        z: the noise of the sum of exactly ``min_survivors`` clients has σ = z·c in a coordinate.
    bits
        Modulus budget: of one coordinate of the sum, sign included.
    cohort
        n, most clients that are summed.
    min_survivors
        m, fewest honest clients in a sum that is decoded. A client that colludes knows its own
        share: it is counted out.
    length
        Coordinates of an update.
    beta
        β of the conditional rounding, in (0, 1); exp(−1/2) as in the paper's experiments.
    wrap_probability
        Largest probability that a coordinate of a round's sum wraps around.

    Raises
    ------
    ConfigError
        If a value is out of its range, or the bits are too few for the cohort and length.
    """

    mechanism: Mechanism
    clip: float
    noise_multiplier: float
    bits: int
    cohort: int
    min_survivors: int
    length: int
    beta: float = math.exp(-0.5)
    wrap_probability: float = 2.0**-40

    def __post_init__(self) -> None:
        self._check_ranges()
        allowed = "a value with σ ≥ 1e-6 granules in the sum"
        expect(self._std() >= 1e-6, "noise_multiplier", self.noise_multiplier, allowed)

    def _check_ranges(self) -> None:
        expect(self.mechanism in _LAWS, "mechanism", self.mechanism, f"one of {sorted(_LAWS)}")
        for key in ("clip", "noise_multiplier"):
            value = getattr(self, key)
            expect(0 < value < math.inf, key, value, "a finite number > 0")
        for key in ("cohort", "length"):
            expect(getattr(self, key) >= 1, key, getattr(self, key), "≥ 1")
        few = self.min_survivors
        expect(1 <= few <= self.cohort, "min_survivors", few, f"in [1, cohort={self.cohort}]")
        for key in ("beta", "wrap_probability"):
            expect(0 < getattr(self, key) < 1, key, getattr(self, key), "in (0, 1)")
        least = self._fewest_bits()
        allowed = f"in [{least}, 63] for cohort={self.cohort}, length={self.length}"
        expect(least <= self.bits <= 63, "bits", self.bits, allowed)
        granules = self.clip / self.granularity
        expect(
            granules <= _LARGEST, "bits", self.bits, f"fewer: the clip has {granules:g} granules"
        )

    @property
    def dimension(self) -> int:
        """d: coordinates of an encoded update."""
        return padded_length(self.length)

    @property
    def deviations(self) -> float:
        """k: standard deviations of signal and noise that do not wrap."""
        return math.sqrt(2.02 * math.log(2 * self.dimension / self.wrap_probability))

    @cached_property
    def granularity(self) -> float:
        """γ, in the unit of the updates; not finer than a share's σ divided by 2**14."""
        room: int = 2 ** (self.bits - 1) - 1 - self.cohort
        fits = self.deviations * self._deviation() / room
        useful = self.noise_multiplier * self.clip / math.sqrt(self.min_survivors) / _FINEST
        return max(fits * (1 + 2.0**-40), useful)

    @property
    def integer_bound(self) -> int:
        """The largest |coordinate| of a sum, but for ``wrap_probability``; below 2**(bits − 1).

        The modulus must be larger than twice this bound. The probability is over the rotation's
        seed, which the updates must not depend on, and the noise.
        """
        return math.floor(self.deviations * self._deviation() / self.granularity + self.cohort)

    @cached_property
    def share(self) -> IntegerNoise:
        """The law of one client's noise in a coordinate, in granules."""
        return _LAWS[self.mechanism](Fraction(self._std() ** 2) / self.min_survivors)

    @cached_property
    def squared_sensitivity(self) -> int:
        """Δ̃², rounded down: no client's rounded update has a larger squared norm, in granules."""
        return squared_norm_bound(self.clip / self.granularity, self.dimension, self.beta)

    def encode(
        self, update: NDArray[np.floating], seed: bytes, words: Stream | None = None
    ) -> NDArray[np.int64]:
        """Return a client's part of the sum, in granules, noise included.

        Parameters
        ----------
        update
            Shape (length,).
        seed
            32 bytes: the round's public rotation, the same for all clients.
        words
            Random bits. Default: a key stream under a new key of the operating system.

        Returns
        -------
        encoded
            Shape (d,). To be masked as it is, modulo more than twice ``integer_bound``.

        Raises
        ------
        ConfigError
            If the update has another shape or the seed another length.
        ProtocolError
            If the update is not finite.
        """
        self._check_shape(update.shape, self.length, "update")
        words = words or fresh_stream()
        values = update.astype(np.float64)
        norm = float(np.linalg.norm(values))
        if not math.isfinite(norm):
            raise ProtocolError(f"an update of norm {norm} cannot be encoded")
        values *= min(1.0, self.clip / norm if norm else 1.0) / self.granularity
        rounded = round_conditionally(rotate(values, seed), self.squared_sensitivity, words)
        return rounded + self.share.sample(self.dimension, words)

    def decode(self, total: NDArray[np.int64], seed: bytes) -> NDArray[np.float64]:
        """Return the sum of the updates and the noise, shape (length,), in the updates' unit.

        Parameters
        ----------
        total
            Shape (d,): the sum of encoded updates, taken from the modulus to both sides of zero.
        seed
            That of the clients.

        Raises
        ------
        ConfigError
            If the sum has another shape or the seed another length.
        """
        self._check_shape(total.shape, self.dimension, "total")
        return unrotate(total * self.granularity, seed, self.length)

    def statement(self) -> NoiseStatement:
        """Return what this noise promises of one sum; an integer vector has ‖x‖₁ ≤ ‖x‖²."""
        l2 = math.sqrt(self.squared_sensitivity)
        return NoiseStatement(
            mechanism=self.mechanism,
            l2_sensitivity=l2,
            l1_sensitivity=min(math.sqrt(self.dimension) * l2, float(self.squared_sensitivity)),
            variance_of_sum=Fraction(self.share.variance) * self.min_survivors,
            granularity=self.granularity,
            survivors=self.min_survivors,
            dimension=self.dimension,
            claims=(
                "Neighbours differ by one client's whole update, added or removed.",
                f"At least {self.min_survivors} clients in each sum add their noise honestly.",
                "Each client keeps the norm bound by itself; the server does not verify it.",
                _SUM_OF_SHARES[self.mechanism],
            ),
        )

    def _std(self) -> float:
        """Return the σ of the noise of ``min_survivors`` shares, in granules."""
        return self.noise_multiplier * self.clip / self.granularity

    def _deviation(self) -> float:
        """Return γ·s, of a coordinate of the whole cohort's sum, in the unit of the updates."""
        signal = self.cohort * self.clip / math.sqrt(self.dimension)
        noise = self.noise_multiplier * self.clip * math.sqrt(self.cohort / self.min_survivors)
        return math.hypot(signal, noise)

    def _fewest_bits(self) -> int:
        """Return the bits for which M − n ≥ 4k²: s = (M − n)/k is then at least 4k."""
        return math.ceil(math.log2(4 * self.deviations**2 + self.cohort + 1)) + 1

    @staticmethod
    def _check_shape(shape: tuple[int, ...], size: int, key: str) -> None:
        expect(shape == (size,), key, f"shape {shape}", f"shape ({size},)")


_SUM_OF_SHARES = {
    "discrete_gaussian": "The sum of the shares is close to a discrete Gaussian, not equal to one: "
    "account for it with arXiv 2102.06387, Theorem 1.",
    "skellam": "The sum of the shares is exactly Skellam.",
}
