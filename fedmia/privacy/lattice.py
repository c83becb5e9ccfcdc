"""Sum and noise on one lattice, so that what is released has no digits of the sum of its own.

Noise in floating point that is added to a sum in floating point lets the sum's last digits through:
some results of one sum are impossible for its neighbour (I. Mironov, On Significance of the Least
Significant Bits for Differential Privacy, CCS 2012). Here both are first rounded to multiples of
γ = 2⁻²⁴ clips. Then nothing more is lost by adding them, and for x on the lattice

    x + ⌊N⌉ = ⌊x + N⌉.

So the result is that of the Gaussian mechanism on x, rounded: post-processing. What the noise has
of artefacts in double precision lies far below γ. All that follows may depend on the result and on
what is public, and on nothing else.

To round the values moves each of d coordinates by up to γ/2 in each of two neighbouring data sets,
by √d·γ in L2 norm together. Whoever clips takes that off the clip: :func:`margin`.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GAMMA = 2.0**-24
"""γ in units of the clip."""

Floating = NDArray[np.floating[Any]]


def noised(values: Floating, noise: Floating, clip: float) -> NDArray[np.float64]:
    """Return ``clip · (⌊values / clip⌉ + ⌊noise⌉)``, of the shape of both.

    Parameters
    ----------
    values
        Sum of clipped vectors.
    noise
        In units of the clip, in double precision, of the same shape. Up to 2²⁸ clips it is on the
        lattice as densely as the argument asks for.
    clip
        What decides the lattice; must not depend on what the noise is to hide.
    """
    released = rounded(values.astype(np.float64) / clip)
    released += rounded(noise)
    released *= clip
    return released


def rounded(values: Floating) -> NDArray[np.float64]:
    """Return the nearest multiples of γ to values in units of the clip, shape (d,)."""
    multiples = values.astype(np.float64)
    multiples /= _GAMMA
    np.rint(multiples, out=multiples)
    multiples *= _GAMMA
    return multiples


def margin(size: int) -> float:
    """Return the share of the clip that rounding a vector of ``size`` coordinates may take."""
    return math.sqrt(size) * _GAMMA
