"""Between real vectors and the integers that masks are added to.

A coordinate is clipped to ``[-clip, clip]`` and rounded to a multiple of ``clip / levels``,
``levels = 2^(bits-1) - 1``. A client sends its integers times its weight, then its weight, then
how many coordinates were clipped, all modulo ``2^modulus_bits``. Since
``cohort · max_weight · levels < 2^(modulus_bits-1)``, the sum over a cohort cannot wrap, and the
weighted mean is off by at most half a step, ``clip / (2 · levels)``, in each coordinate that was
not clipped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmia.errors import expect
from fedmia.records import Params
from fedmia.secagg.errors import ProtocolError

Words = NDArray[np.uint32] | NDArray[np.uint64]

_MODULI = (32, 64)
_EXTRA = 2


@dataclass(frozen=True)
class Mean:
    """What the sum of a cohort says of it.

    ``clipped`` is the share of coordinates that were clipped, over all clients; ``None`` where it
    was not counted.
    """

    delta: Params
    metrics: Mapping[str, float]
    weight: int
    clipped: float | None


@dataclass(frozen=True)
class Codec:
    """Fixed-point numbers for the sum of a cohort.

    Parameters
    ----------
    cohort
        Most clients that are summed.
    clip
        Bound of one coordinate of an update, in absolute value.
    bits
        Of one coordinate, sign included.
    max_weight
        Largest weight of a client; 1 gives all clients the same.
    metric_range
        Bound of a metric, in absolute value.
    modulus_bits
        Of one word on the wire, 32 or 64; ``None`` takes the smaller that holds the sum.
    """

    cohort: int
    clip: float = 1.0
    bits: int = 16
    max_weight: int = 1000
    metric_range: float = 100.0
    modulus_bits: int | None = None

    def __post_init__(self) -> None:
        expect(self.cohort >= 1, "cohort", self.cohort, "at least 1")
        expect(0 < self.clip < np.inf, "clip", self.clip, "more than 0 and finite")
        expect(2 <= self.bits <= 32, "bits", self.bits, "in 2..32")
        expect(self.max_weight >= 1, "max_weight", self.max_weight, "at least 1")
        range_ = self.metric_range
        expect(0 < range_ < np.inf, "metric_range", range_, "more than 0 and finite")
        allowed = (None, *_MODULI)
        expect(self.modulus_bits in allowed, "modulus_bits", self.modulus_bits, "32, 64 or null")
        needed = self.largest_sum.bit_length() + 1
        allowed_bits = f"at least {needed}, for {self.cohort} clients × weight {self.max_weight} × "
        allowed_bits += f"{self.bits} bits"
        given = self.modulus_bits or _MODULI[-1]
        expect(needed <= given, "modulus_bits", given, allowed_bits)

    @property
    def levels(self) -> int:
        """The largest integer that a coordinate becomes."""
        return int(2 ** (self.bits - 1) - 1)

    @property
    def largest_sum(self) -> int:
        """The largest absolute value that the sum of a coordinate can reach."""
        return self.cohort * self.max_weight * self.levels

    @property
    def error_bound(self) -> float:
        """Largest error of a coordinate of the mean, where nothing was clipped."""
        return self.clip / (2 * self.levels)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the words on the wire."""
        bits = self.modulus_bits
        if bits is None:
            bits = next(m for m in _MODULI if self.largest_sum.bit_length() < m)
        return np.dtype(f"<u{bits // 8}")

    def signed(self, words: Words) -> NDArray[Any]:
        """Return the words as the integers nearest to zero that they stand for; no copy."""
        signed: NDArray[Any] = words.view(self.dtype.str.replace("u", "i"))
        return signed

    def length(self, size: int, metrics: int) -> int:
        """Return how many words so many coordinates and metrics become."""
        return size + metrics + _EXTRA

    def encode(self, delta: Params, metrics: Mapping[str, float], weight: int) -> Words:
        """Return one client's words, of shape (coordinates + metrics + 2,), not yet masked.

        Raises
        ------
        ProtocolError
            For a weight out of range, or a value that is not finite.
        """
        weight = min(weight, 1) if self.max_weight == 1 else weight
        if not 1 <= weight <= self.max_weight:
            raise ProtocolError(
                f"weight {weight}: expected in 1..{self.max_weight} (max_weight); it would not fit"
            )
        values = flatten(delta).astype(np.float64)
        reported = np.array(list(metrics.values()), dtype=np.float64)
        if not (np.isfinite(values).all() and np.isfinite(reported).all()):
            raise ProtocolError("the update or a metric is not finite")
        if len(values) * self.cohort >= 2 ** (8 * self.dtype.itemsize):
            raise ProtocolError(f"{len(values)} coordinates: the count of clipped ones could wrap")
        words = np.empty(self.length(len(values), len(reported)), dtype=self.dtype)
        signed = self.signed(words)
        end = len(values)
        np.copyto(signed[:end], self._integers(values, self.clip), casting="unsafe")
        np.copyto(signed[end:-_EXTRA], self._integers(reported, self.metric_range), "unsafe")
        signed[:-_EXTRA] *= weight
        words[-2] = weight
        words[-1] = np.count_nonzero(np.abs(values) > self.clip)
        return words

    def decode(self, total: Words, like: Params, names: Sequence[str], clients: int) -> Mean:
        """Return the weighted mean that a sum of words stands for.

        Parameters
        ----------
        total
            Sum of ``clients`` clients' words, without masks.
        like
            Arrays with the names and shapes of the update.
        names
            Of the metrics, in the order in which they were encoded.

        Raises
        ------
        ProtocolError
            If the sum is none that so many clients could give: masks were left in it.
        """
        signed = self.signed(total)
        weight, clipped = int(total[-2]), int(total[-1])
        size = len(total) - _EXTRA - len(names)
        largest = int(np.abs(signed[:-_EXTRA].astype(np.float64)).max(initial=0.0))
        if (
            not clients <= weight <= clients * self.max_weight
            or clipped > clients * size
            or largest > weight * self.levels
        ):
            raise ProtocolError("the masks do not cancel; the sum is out of its range")
        mean = signed[:-_EXTRA] / (float(weight) * self.levels)
        values = mean[size:] * self.metric_range
        return Mean(
            delta=unflatten(mean[:size] * self.clip, like),
            metrics=dict(zip(names, map(float, values), strict=True)),
            weight=weight,
            clipped=clipped / max(1, clients * size),
        )

    def _integers(self, values: NDArray[Any], bound: float) -> NDArray[Any]:
        integers: NDArray[Any] = np.clip(values, -bound, bound)
        integers *= self.levels / bound
        np.rint(integers, out=integers)
        return integers


def floating(params: Params) -> list[str]:
    """Return the names of the arrays that are summed: counters and flags are not."""
    return [name for name, value in params.items() if value.dtype.kind == "f"]


def flatten(delta: Params) -> NDArray[Any]:
    """Return the floating arrays as one vector."""
    parts = [np.asarray(delta[name]).ravel() for name in floating(delta)]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def unflatten(vector: NDArray[Any], like: Params) -> dict[str, NDArray[Any]]:
    """Return a vector as the floating arrays of the same names, shapes and types.

    Raises
    ------
    ProtocolError
        If the vector has another length.
    """
    names, arrays, start = floating(like), {}, 0
    if len(vector) != sum(like[name].size for name in names):
        raise ProtocolError(f"{len(vector)} coordinates: expected those of the model")
    for name in names:
        end = start + like[name].size
        arrays[name] = vector[start:end].reshape(like[name].shape).astype(like[name].dtype)
        start = end
    return arrays
