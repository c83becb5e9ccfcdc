"""Where noise and sampling decisions come from: a seed, or the operating system.

Floats of a textbook sampler betray the noise-free value by the gaps between them (I. Mironov, On
Significance of the Least Significant Bits for Differential Privacy, CCS 2012). The secure source
adds up several normals instead, so that no search over their bits undoes the noise: N. Holohan,
S. Braghin, Secure Random Sampling in Differential Privacy, ESORICS 2021 (arXiv 2107.10138). Its
bits are a ChaCha20 key stream under a key of the operating system. The sum that it is added to has
last digits too: :mod:`fedmia.privacy.lattice` sees to those.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fedmia.secagg.stream import Stream, draw, fresh_stream
from fedmia.seeding import generator

Uniform = Callable[[int], NDArray[np.float64]]

_SUMMANDS = 4
"""Normals that make one; Holohan and Braghin's 2n with n = 2."""

_TILE = 2**15
"""Floats that are made at a time, so that all intermediate results stay in the cache."""


class Gaussian(Protocol):
    """A source of standard normal noise."""

    def __call__(self, size: int) -> NDArray[np.floating[Any]]:
        """Return the next ``size`` values, shape (size,), in double precision if secure."""


def gaussian_source(secure: bool, seed: int, purpose: str, *key: int) -> Gaussian:
    """Return a source of standard normal noise.

    Parameters
    ----------
    secure
        Whether the noise is unpredictable, in double precision; added by
        :func:`fedmia.privacy.lattice.noised` it is safe against floating-point attacks. If not, it
        is that of the seed, the same whenever it is asked for, in single precision, of 2²⁴
        different values up to ±5.42: good for experiments, but it protects nobody.
    seed, purpose, key
        As in :func:`fedmia.seeding.generator`; not read if ``secure``.
    """
    if secure:
        words = fresh_stream()
        return lambda size: _secure_normal(words, size)
    bits = generator(seed, purpose, *key).bit_generator
    return lambda size: _seeded_normal(bits, size)


def uniform_source(secure: bool, seed: int, purpose: str, *key: int) -> Uniform:
    """Return a source of uniform numbers in [0, 1), for decisions about who is sampled.

    The parameters are those of :func:`gaussian_source`.
    """
    if secure:
        words = fresh_stream()
        return lambda size: _unit(words, size)
    return generator(seed, purpose, *key).random


def _unit(words: Stream, count: int) -> NDArray[np.float64]:
    """Return multiples of 2⁻⁵³ in [0, 1), shape (count,)."""
    return (draw(words, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _seeded_normal(bits: np.random.BitGenerator, size: int) -> NDArray[np.float32]:
    """Return √2·erf⁻¹(u), with u the odd multiples of 2⁻²⁴ in (−1, 1), which float32 holds."""
    raw: NDArray[np.uint64] = bits.random_raw((size + 1) // 2)
    halves = torch.from_numpy(raw.view(np.int32)[:size])
    uniform = halves.bitwise_right_shift_(8).to(torch.float32).add_(0.5).mul_(2.0**-23)
    normal: NDArray[np.float32] = uniform.erfinv_().mul_(math.sqrt(2)).numpy()
    return normal


def _secure_normal(words: Stream, size: int) -> NDArray[np.float64]:
    """Return sums of Box and Muller's normals, scaled to variance 1."""
    noise = np.empty(size)
    for start in range(0, size, _TILE):
        tile = noise[start : start + _TILE]
        pairs = (len(tile) + 1) // 2
        draws = torch.from_numpy(_unit(words, 2 * _SUMMANDS * pairs)).view(2, _SUMMANDS, pairs)
        radius = draws[0].neg().log1p_().mul_(-2.0 / _SUMMANDS).sqrt_()
        angle = draws[1] * (2 * math.pi)
        both = torch.cat(((radius * angle.cos()).sum(0), (radius * angle.sin()).sum(0)))
        tile[:] = both[: len(tile)].numpy()
    return noise
