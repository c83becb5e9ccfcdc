"""Conditional randomised rounding: integers without bias whose norm keeps a bound.

P. Kairouz, Z. Liu, T. Steinke, ICML 2021 (arXiv 2102.06387), Algorithm 1 and Proposition 22. Each
coordinate goes up or down at random so that its mean stays; the whole vector is rounded again
until its norm is at most

    Δ̃² = min{ (c + √d)², c² + d/4 + √(2 ln(1/β))·(c + √d/2) }

which one try meets with probability at least 1 − β for every x with ‖x‖ ≤ c. Sensitivity then
grows with √d/2 rather than √d; the price is a bias of at most √d·β/(1 − β) in norm.
"""

import math

import numpy as np
from numpy.typing import NDArray

from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.stream import Stream, draw

_TRIES = 2000
"""At β = 0.9 so many failures in a row have probability below 1e-91: the bits are not random."""


def squared_norm_bound(clip: float, d: int, beta: float) -> int:
    """Return the largest integer that ‖x̃‖² may be: Δ̃² rounded down.

    Parameters
    ----------
    clip
        c, the bound on ‖x‖ in units of the granularity.
    d
        Coordinates.
    beta
        β, in (0, 1).
    """
    always = (clip + math.sqrt(d)) ** 2
    likely = clip**2 + d / 4 + math.sqrt(2 * math.log(1 / beta)) * (clip + math.sqrt(d) / 2)
    return math.floor(min(always, likely))


def round_conditionally(
    x: NDArray[np.float64], squared_bound: int, words: Stream
) -> NDArray[np.int64]:
    """Return integers x̃, shape (d,), with ‖x̃‖² ≤ ``squared_bound`` and each |x̃ − x| < 1.

    Parameters
    ----------
    x
        Shape (d,), in units of the granularity, finite.
    squared_bound
        From :func:`squared_norm_bound`, for a ``clip`` that ‖x‖ keeps; below 2**62.
    words
        One word a coordinate and try. A rounding's probability is right to 2**-53.

    Raises
    ------
    ProtocolError
        If no try meets the bound: x is longer than promised, or the words are not random.
    """
    floor = np.floor(x)
    fraction = x - floor
    for _ in range(_TRIES):
        uniform = (draw(words, x.size) >> np.uint64(11)) * 2.0**-53
        rounded = floor.astype(np.int64) + (uniform < fraction)
        if int(rounded @ rounded) <= squared_bound:
            return rounded
    raise ProtocolError(f"rounding to a squared norm of at most {squared_bound} does not succeed")
