"""Exact samplers of integer noise: the discrete Gaussian and the Skellam law.

C. Canonne, G. Kamath, T. Steinke, The Discrete Gaussian for Differential Privacy, NeurIPS 2020
(arXiv 2004.00010): P(k) ∝ exp(−k²/2σ²), k an integer.
N. Agarwal, P. Kairouz, Z. Liu, The Skellam Mechanism for Differentially Private Federated
Learning, NeurIPS 2021 (arXiv 2110.04995): the difference of two Poisson variables of mean σ²/2,
P(k) = exp(−σ²) I_k(σ²) with the modified Bessel function I_k; sums of it are Skellam again.

A draw inverts F(j) = P(|k| ≤ j) at a uniform U of which only the needed bits are drawn. 63 bits
are looked up in a table that is right to one unit of the last place. Where these leave two answers
possible, next to a boundary or in the far tail, U gets 64 further bits and F as many further
digits, until one answer is left. So the law is exact; only its time depends on the draw (the
sampler does not hide its memory accesses from another program on the same machine).
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import final

import numpy as np
from numpy.typing import NDArray

from fedmia.errors import expect
from fedmia.secagg.stream import Stream, draw, fresh_stream

MAX_VARIANCE = 2**32
"""σ = 65,536: a table of 600,000 entries, built in seconds; the error analysis below uses it."""

_BITS = 63
_GUARD = 25


@dataclass(frozen=True)
class IntegerNoise(ABC):
    """A symmetric law on the integers, given by its variance parameter σ².

    Parameters
    ----------
    variance
        σ², exact, in (0, 2**32].

    Raises
    ------
    ConfigError
        If the variance is not exact or outside its range.
    """

    variance: Fraction | int

    def __post_init__(self) -> None:
        exact = isinstance(self.variance, Fraction | int)
        allowed = f"an integer or a fraction in (0, {MAX_VARIANCE}]"
        expect(exact and 0 < self.variance <= MAX_VARIANCE, "variance", self.variance, allowed)

    @abstractmethod
    def half_weights(self, digits: int) -> list[Decimal]:
        """Return numbers proportional to P(0), P(1), …, as far as they count.

        Their normalised partial sums are those of the law with an error below 10**-digits. Called
        within a decimal context of digits + 25 places.
        """

    @final
    def sample(self, size: int, words: Stream | None = None) -> NDArray[np.int64]:
        """Return independent draws, shape (size,).

        Parameters
        ----------
        size
            How many.
        words
            Random bits: one word a draw, and one more for about every 2**46th. Default: a key
            stream under a new key of the operating system.
        """
        words = words or fresh_stream()
        word = draw(words, size)
        uniform = word >> np.uint64(1)
        table = _table(self)
        place = np.searchsorted(table, uniform, side="right")
        # before the first entry there is none below: the difference wraps, and is large
        open_ = np.flatnonzero(uniform - table[place - 1] <= 1)
        magnitude = place.astype(np.int64, copy=False)
        for i in open_:
            magnitude[i] = self._refine(int(uniform[i]), words)
        sign = 1 - 2 * (word & np.uint64(1)).astype(np.int64)
        return sign * magnitude

    @final
    def cumulative(self, bits: int) -> list[int]:
        """Return for j = 0, 1, … the floor of F(j)·2**bits, or one less.

        The list ends at the first of at least 2**bits − 2.
        """
        digits = math.ceil((bits + 16) * math.log10(2))
        table = []
        with localcontext(Context(prec=digits + _GUARD)):
            weights = self.half_weights(digits)
            sums = list(accumulate((2 * w for w in weights[1:]), initial=weights[0]))
            scale, margin = 2**bits / sums[-1], Decimal(2) ** -10
            for partial in sums:
                table.append(int(partial * scale - margin))
                if table[-1] >= 2**bits - 2:
                    break
        return table

    def _refine(self, uniform: int, words: Stream) -> int:
        """Return the draw of a U that begins with these 63 bits."""
        bits = _BITS
        while True:
            bits += 64
            uniform = uniform << 64 | int(draw(words, 1)[0])
            table = self.cumulative(bits)
            place = bisect_right(table, uniform)
            if place == 0 or uniform - table[place - 1] > 1:
                return place


@final
class DiscreteGaussian(IntegerNoise):
    """P(k) ∝ exp(−k²/2σ²). Its variance is at most σ², and equal to it but for tiny σ."""

    def half_weights(self, digits: int) -> list[Decimal]:
        """Return exp(−k²/2σ²) by w ← w·q^(2k+1), q = exp(−1/2σ²).

        A weight has at most about 2k² rounding errors, k² < 2**48. It ends where the weights fall
        below 10**-(digits + 10); those left out sum to less than 2**17 times as much.
        """
        q = (-1 / (2 * _decimal(self.variance))).exp()
        weights, weight, ratio, square = [], Decimal(1), q, q * q
        smallest = Decimal(10) ** -(digits + 10)
        while weight > smallest:
            weights.append(weight)
            weight *= ratio
            ratio *= square
        return weights


@final
class Skellam(IntegerNoise):
    """P(k) = exp(−σ²) I_k(σ²): the difference of two Poisson variables of mean σ²/2."""

    def half_weights(self, digits: int) -> list[Decimal]:
        """Return multiples of I_k(x), x = σ², by Miller's recurrence from k = N down.

        I_{k−1} = I_{k+1} + (2k/x) I_k, all terms positive, started with 0 and 1. What the start
        adds to I_k/I_0 is at most I_{N+1}/I_0, for K_k, the other solution, grows with k; N is
        where Chernoff's bound puts the tail below 10**-(digits + 20). The sum of all weights
        normalises them, by exp(x) = I_0 + 2 Σ I_k.
        """
        factor = 2 / _decimal(self.variance)
        upper, lower = Decimal(0), Decimal(1)
        weights = [lower]
        for k in range(self._last(digits + 20), 0, -1):
            upper, lower = lower, upper + factor * k * lower
            weights.append(lower)
        return weights[::-1]

    def _last(self, digits: int) -> int:
        """Return an N with −ln P(|k| > N) ≥ N asinh(N/x) − √(N² + x²) + x − ln 2 > digits·ln 10."""
        x = float(self.variance)
        step = last = math.ceil(math.sqrt(x))
        while last * math.asinh(last / x) - last**2 / (math.hypot(last, x) + x) < (
            digits * math.log(10) + 1
        ):
            last += step
        return last


def _decimal(value: Fraction | int) -> Decimal:
    return Decimal(value.numerator) / Decimal(value.denominator)


@lru_cache(maxsize=16)
def _table(law: IntegerNoise) -> NDArray[np.uint64]:
    table = np.array(law.cumulative(_BITS), dtype=np.uint64)
    table.flags.writeable = False
    return table
