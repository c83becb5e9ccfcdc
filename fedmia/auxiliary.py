"""The adversary's own records: from the same distribution, a shifted one, or another domain.

The protocol of transfer (Salem et al., "ML-Leaks", NDSS 2019, arXiv 1806.01246, adversaries 1
to 3): how much does an attack lose when its records are not those of the federation?
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedmia.datasets.base import Dataset
from fedmia.datasets.scaling import standardise
from fedmia.records import Examples

_ANGLE = 20.0  # degrees
_BLUR = 0.7  # standard deviations in pixels
_GAIN = 0.3  # of the logarithm of each feature's factor
_NOISE = 0.5  # in standard deviations of each feature


def shifted(records: Examples, rng: np.random.Generator) -> Examples:
    """Return distorted records: images turned and blurred, vectors scaled and made noisy.

    Each feature of vectors gets a factor ``exp(N(0, 0.3²))`` and Gaussian noise of half its
    standard deviation.
    """
    x = records.x
    if len(x) == 0:
        return records
    if x.ndim == 4:
        turned = ndimage.rotate(x, _ANGLE, axes=(2, 3), reshape=False, order=1, mode="nearest")
        moved = ndimage.gaussian_filter(turned, (0, 0, _BLUR, _BLUR))
    else:
        gain = np.exp(rng.normal(scale=_GAIN, size=x.shape[1:]))
        moved = x * gain + rng.normal(size=x.shape) * _NOISE * x.std(axis=0)
    return Examples(moved.astype(np.float32), records.y)


def reshaped(other: Dataset, like: Dataset) -> Examples:
    """Return another data set's records in the shape and with the labels of ``like``.

    Features are read as one sequence and interpolated to the wanted length; label c becomes c
    modulo the number of classes.
    """
    flat = other.x.reshape(len(other), -1)
    wanted = int(np.prod(like.input_shape))
    where = np.linspace(0, flat.shape[1] - 1, wanted)
    low = np.floor(where).astype(np.int64)
    high = np.minimum(low + 1, flat.shape[1] - 1)
    x = flat[:, low] + (where - low) * (flat[:, high] - flat[:, low])
    shape = (len(other), *like.input_shape)
    return Examples(x.astype(np.float32).reshape(shape), other.y % like.num_classes)


def rescaled(records: Examples, like: Dataset) -> Examples:
    """Return records with values on the scale of those of ``like``.

    Each feature is brought to the mean and the standard deviation of all values of ``like``
    together, and cut off at the lowest and the highest of them: four numbers that the adversary is
    taken to know, as who knows a record's format does (pixels in [0, 1], standardised columns,
    bits). They are those of members and others alike.
    """
    flat = records.x.reshape(len(records), -1).astype(np.float64)
    scaled = like.x.mean() + like.x.std() * standardise(flat)
    known = np.clip(scaled, like.x.min(), like.x.max()).astype(np.float32)
    return Examples(known.reshape(records.x.shape), records.y)


def share_of(records: Examples, share: float, rng: np.random.Generator) -> Examples:
    """Return a random ``share`` of the records."""
    return records[rng.permutation(len(records))[: round(share * len(records))]]


def overlap(records: Examples, evaluated: Examples) -> int:
    """Return how many of the records are among the evaluated ones, feature by feature."""
    seen = set(_rows(evaluated.x))
    return sum(row in seen for row in _rows(records.x))


def _rows(x: NDArray[np.float32]) -> list[bytes]:
    return [row.tobytes() for row in x]
