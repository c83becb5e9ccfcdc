"""What an update looks like in a few numbers: sizes, shapes and directions, layer by layer.

Low-dimensional surrogates of updates, of which malicious ones stand out: S. Li, Y. Cheng, W. Wang,
Y. Liu, T. Chen, "Learning to Detect Malicious Clients for Robust Federated Learning", 2020
(arXiv 2002.00211).
"""

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedmia.records import Params
from fedmia.seeding import generator

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

BUCKETS = 1021
"""Entries of an array's sketch; a prime, so that it shares no period with the array's rows."""

_LEAST = 1e-12
_FLOOR = math.log(_LEAST)
_STATISTICS = ("log_norm", "mean", "log_std", "log_kurtosis")
_COSINES = ("cosine_aggregate", "cosine_previous")


class Profile:
    """Turns updates of one model into features of one length.

    Of each floating array v of the update: ``ln ‖v‖``, the mean in units of the root mean square,
    ``ln std``, ``ln kurtosis`` (0 where all entries are the same, ln 3 of a Gaussian), and the
    cosines to the last change of the global model and to the client's own previous update. All are
    finite, but that last one is NaN where no previous update is known. Of the last one-dimensional
    array, the biases of the classes: its direction.

    The two cosines are those of sketches: each array, with fixed random signs, is added up into
    ``BUCKETS`` entries, and arrays no longer than that are kept whole. Inner products of sketches
    are unbiased, with a standard deviation of about √(2/BUCKETS) = .044 of a cosine. So what has to
    be remembered of a client is a few thousand numbers, not d.

    Parameters
    ----------
    model
        Names, shapes and types of its arrays; values do not matter.
    """

    def __init__(self, model: Params) -> None:
        floating = {k: v for k, v in model.items() if v.dtype.kind == "f" and v.size}
        self._places: dict[str, slice] = {}
        self._sketched: dict[str, slice] = {}
        self._signs: dict[str, Float32] = {}
        start = begin = 0
        for number, (name, value) in enumerate(floating.items()):
            self._places[name] = slice(start, start + value.size)
            start += value.size
            entries = min(value.size, BUCKETS)
            self._sketched[name] = slice(begin, begin + entries)
            begin += entries
            if value.size > BUCKETS:
                self._signs[name] = _signs(number, value.size)
        self.size, self.sketch_size = start, begin
        self._begins = [place.start for place in self._sketched.values()]
        biases = [name for name, value in floating.items() if value.ndim == 1 and value.size > 1]
        self._biases = biases[-1] if biases else None
        self.names = tuple(self._named())

    def __len__(self) -> int:
        return len(self.names)

    def flat(self, params: Params) -> Float32:
        """Return the floating arrays in one vector, (d,)."""
        return np.concatenate([np.ravel(params[name]) for name in self._places], dtype=np.float32)

    def sketch(self, row: Float32) -> Float32:
        """Return the sketch of an update or a model, (d,) → (sketch_size,); it is linear."""
        found = np.empty(self.sketch_size, np.float32)
        for name, place in self._places.items():
            into, values = found[self._sketched[name]], row[place]
            if name not in self._signs:
                into[:] = values
                continue
            signed = values * self._signs[name]
            whole = len(signed) // BUCKETS * BUCKETS
            np.sum(signed[:whole].reshape(-1, BUCKETS), axis=0, out=into)
            into[: len(signed) - whole] += signed[whole:]
        return found

    def __call__(
        self, row: Float32, sketch: Float32, aggregate: Float32, previous: Float32 | None
    ) -> Float64:
        """Return the features of one update, (len(self),).

        Parameters
        ----------
        row
            The update, (d,).
        sketch
            Its sketch, (sketch_size,).
        aggregate
            The sketch of the last change of the global model; zeros before there was one.
        previous
            The sketch of the client's previous update, ``None`` if it is not known.
        """
        towards = self._cosines(sketch, aggregate), self._cosines(sketch, previous)
        found: list[float] = []
        for place, *cosines in zip(self._places.values(), *towards, strict=True):
            found += [*_statistics(row[place]), *cosines]
        if self._biases is not None:
            biases = row[self._places[self._biases]].astype(np.float64)
            norm = np.linalg.norm(biases)
            found += (biases / norm if norm > _LEAST else np.zeros(len(biases))).tolist()
        return np.array(found)

    def most(self, sizes: Float64, count: int) -> Mapping[str, int]:
        """Return the names and places of the features with the largest of these sizes, (f,)."""
        places = np.argsort(-sizes, kind="stable")[:count]
        return {self.names[place]: int(place) for place in places}

    def _cosines(self, a: Float32, b: Float32 | None) -> list[float]:
        """Return the cosine of each array of two sketches; 0 where one is zero, NaN without one."""
        if b is None:
            return [math.nan] * len(self._places)
        a, b = a.astype(np.float64), b.astype(np.float64)
        inner, aa, bb = (np.add.reduceat(x, self._begins) for x in (a * b, a * a, b * b))
        both = np.sqrt(aa) * np.sqrt(bb)
        usable = both > _LEAST**2
        found: list[float] = np.where(usable, inner / np.where(usable, both, 1.0), 0.0).tolist()
        return found

    def _named(self) -> list[str]:
        names = [f"{name}.{what}" for name in self._places for what in (*_STATISTICS, *_COSINES)]
        if self._biases is not None:
            classes = range(self._places[self._biases].stop - self._places[self._biases].start)
            names += [f"{self._biases}[{c}]" for c in classes]
        return names


@lru_cache(maxsize=64)
def _signs(number: int, size: int) -> Float32:
    drawn = generator(0, "update sketch", number).integers(0, 2, size)
    return (2 * drawn - 1).astype(np.float32)


def _statistics(values: Float32) -> list[float]:
    """Return ln norm, mean / rms, ln std and ln kurtosis, without overflow on the way."""
    count = values.size
    largest = max(float(values.max()), -float(values.min())) if count else 0.0
    if largest < _LEAST:
        return [_FLOOR, 0.0, _FLOOR, 0.0]
    centred = values * np.float32(1 / largest)
    mean = float(np.add.reduce(centred)) / count
    centred -= np.float32(mean)
    squares = np.multiply(centred, centred, out=centred)
    variance = float(np.add.reduce(squares)) / count
    rms = math.hypot(mean, math.sqrt(variance))
    norm = math.log(largest * rms) + math.log(count) / 2
    if variance < _LEAST:
        return [norm, mean / rms, _FLOOR, 0.0]
    fourth = float(np.einsum("i,i->", squares, squares)) / count
    std = math.log(largest) + math.log(variance) / 2
    kurtosis = math.log(max(fourth / variance**2, 1.0))
    return [norm, mean / rms, max(std, _FLOOR), kurtosis]
