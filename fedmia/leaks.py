"""Whether masked words look like what they must look like: uniform, and independent of each other.

Three tests of one hypothesis, that all words of a transcript are uniform and independent:

* each bit of a word is set half of the time: Σ (2k − n)²/n over the bit positions, k of n words
  having the bit set, is χ² with one degree of freedom a position;
* all 256 values of each byte of a word are equally frequent: Pearson's X², summed over the byte
  positions, is χ² with 255 degrees of freedom a position;
* no two vectors have a mask in common: for y, y' of length L, R = |Σ exp(2πi(y ∓ y')/2^b)|²/L is
  large if their difference or sum is small, as it is where a mask was used twice or two masks
  cancel. P(R > r) ≈ e^−r (the Rayleigh test; Mardia and Jupp, Directional Statistics, 2000,
  Section 6.3.1), times the number of pairs (Bonferroni).

Counts are pooled over rounds and clients: the degrees of freedom do not grow with them. A constant
that is added to words with a good mask leaves them uniform, and is no leak.
"""

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from fedmia.masked import LeakCheck
from fedmia.records import Observation

LEVEL = 1e-4
"""Chance that good masks are called a leak, all three tests together (Bonferroni)."""

ENOUGH = 256
"""Fewer words say nothing: the law of Pearson's X² is a limit."""

_LONGEST, _MOST, _PRODUCTS = 2048, 2048, 2**28

Words = NDArray[np.unsignedinteger]


def check(rounds: Iterable[Observation]) -> LeakCheck | None:
    """Return what the masked words of a transcript look like; ``None`` if it has none.

    All words count in the tests of bits and bytes. For the pairs, the first 2,048 vectors are
    compared in at most 2,048 coordinates, evenly spread, and in fewer where there are many.
    """
    vectors = (masked.words for seen in rounds for masked in seen.masked)
    if (first := next(vectors, None)) is None:
        return None
    return check_words(chain([first], vectors))


def check_words(vectors: Iterable[Words]) -> LeakCheck:
    """Return what these vectors of words, all of one type, look like; there is at least one."""
    kept: list[Words] = []
    counts = _count(_keeping(vectors, kept))
    size = len(counts)
    words = int(counts[0].sum())
    found: LeakCheck = {
        "words": words,
        "bit_p": _bit_p(counts),
        "byte_p": _byte_p(counts),
        "pair_p": _pair_p(kept, 8 * size),
        "verdict": "uniform",
    }
    if words < ENOUGH:
        found["verdict"] = "too few words"
    elif min(found["bit_p"], found["byte_p"], found["pair_p"]) < LEVEL / 3:
        found["verdict"] = "not uniform"
    return found


def _keeping(vectors: Iterable[Words], kept: list[Words]) -> Iterator[Words]:
    for words in vectors:
        if len(kept) < _MOST:
            kept.append(words[:: -(-len(words) // _LONGEST) or 1].copy())
        yield words


def _count(vectors: Iterable[Words]) -> NDArray[np.int64]:
    """Return how often each byte has each value, shape (bytes of a word, 256), lowest first."""
    counts: NDArray[np.int64] | None = None
    for words in vectors:
        size = words.dtype.itemsize
        split = words.astype(words.dtype.newbyteorder("<"), copy=False).view(np.uint8)
        here = np.stack([np.bincount(split[b::size], minlength=256) for b in range(size)])
        counts = here if counts is None else counts + here
    assert counts is not None
    return counts


def _bit_p(counts: NDArray[np.int64]) -> float:
    total = max(1, counts[0].sum())
    is_set = np.arange(256)[:, None] >> np.arange(8) & 1
    ones = counts @ is_set
    return float(chi2.sf(((2.0 * ones - total) ** 2 / total).sum(), ones.size))


def _byte_p(counts: NDArray[np.int64]) -> float:
    expected = max(1, counts[0].sum()) / 256
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float(chi2.sf(statistic, counts.size - len(counts)))


def _pair_p(kept: list[Words], bits: int) -> float:
    """Return the smallest p-value of a pair, times twice the number of pairs; 1 without any."""
    vectors = len(kept)
    length = min(map(len, kept))
    length = min(length, max(64, _PRODUCTS // vectors**2))
    if vectors < 2 or length == 0:
        return 1.0
    turns = np.stack([words[:length] for words in kept]) * 2.0 ** (1 - bits)
    points = np.exp(1j * np.pi * turns).astype(np.complex64)
    pairs = np.triu_indices(vectors, 1)
    products = (points @ points.conj().T, points @ points.T)
    largest = max(float(np.abs(p[pairs]).max()) ** 2 / length for p in products)
    return float(min(1.0, 2 * len(pairs[0]) * np.exp(-largest)))
