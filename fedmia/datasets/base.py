"""What every data source is: something that reads records, and one clean way to load them."""

import hashlib
import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from numpy.typing import NDArray

from fedmia.errors import ConfigError, expect
from fedmia.records import Examples

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """n labelled records.

    ``x`` is float32 of shape (n, *input_shape), images are (n, channels, height, width) in [0, 1];
    ``y`` is int64 of shape (n,), an index into ``class_names``; ``owner`` is the record's natural
    owner (a hospital, a writer), int64 of shape (n,), an index into ``owner_names``, or ``None``.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    class_names: tuple[str, ...]
    owner: NDArray[np.int64] | None = None
    owner_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.y)

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one record's features."""
        return tuple(int(size) for size in self.x.shape[1:])

    def examples(self, index: NDArray[np.int64]) -> Examples:
        """Return the records at ``index``, in that order."""
        return Examples(self.x[index], self.y[index])

    def select(self, index: NDArray[np.int64]) -> "Dataset":
        """Return a data set of the records at ``index`` alone; names stay as they are."""
        owner = None if self.owner is None else self.owner[index]
        return replace(self, x=self.x[index], y=self.y[index], owner=owner)


@dataclass(frozen=True, kw_only=True)
class DatasetSource(ABC):
    """A place that records can be read from.

    Subclasses are frozen dataclasses whose fields are settings; they implement :meth:`read`.
    Keys in errors are relative to the source (``path=…``, ``label_noise=…``).

    Attributes
    ----------
    label_noise
        Fraction of the labels re-drawn uniformly over all C classes, so that about
        ``label_noise·(C−1)/C`` of them change.
    dedup_radius
        A record closer than this to an earlier one (L2 over all features) is dropped; 0 drops
        exact duplicates only.
    """

    label_noise: float = 0.0
    dedup_radius: float = 0.0

    def __post_init__(self) -> None:
        expect(0 <= self.label_noise <= 1, "label_noise", self.label_noise, "a number in [0, 1]")
        finite = 0 <= self.dedup_radius < float("inf")
        expect(finite, "dedup_radius", self.dedup_radius, "a finite number of at least 0")

    @abstractmethod
    def read(self, rng: np.random.Generator) -> Dataset:
        """Return all records as they are, or, for a synthetic source, as drawn from ``rng``."""

    @final
    def load(self, rng: np.random.Generator) -> Dataset:
        """Read, validate, drop duplicates and add the declared label noise.

        A record that occurs twice could be a member and a non-member at once, so the first copy
        alone is kept. Noise falls on all records alike, before anybody is a member: noise on
        members only would itself give them away.

        Raises
        ------
        ConfigError
            If a value is not finite, there are fewer than two classes, or a class is empty.
        """
        data = self.read(rng)
        _check_values(data)
        kept = _distinct(data.x, self.dedup_radius)
        if len(kept) < len(data):
            log.info("dropped %d duplicates of %d records", len(data) - len(kept), len(data))
            data = data.select(kept)
        _check_classes(data, "classes", list(data.class_names)[:10])
        data = replace(data, y=_redraw(data.y, data.num_classes, self.label_noise, rng))
        _check_classes(data, "label_noise", self.label_noise)
        return data


def _check_values(data: Dataset) -> None:
    flat = data.x.reshape(len(data), -1)
    bad = ~np.isfinite(flat).all(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        column = int(np.argmax(~np.isfinite(flat[row])))
        where = f"row {row}, column {column}"
        raise ConfigError(f"x={flat[row, column]}: expected finite numbers only ({where}, from 0)")


def _check_classes(data: Dataset, key: str, value: object) -> None:
    expect(data.num_classes >= 2, key, value, f"at least 2 classes, got {data.num_classes}")
    empty = np.flatnonzero(np.bincount(data.y, minlength=data.num_classes) == 0)
    for index in empty[:1]:
        name = data.class_names[index]
        expect(False, key, value, f"records of every class, '{name}' is an empty class")


def _distinct(x: NDArray[np.float32], radius: float) -> NDArray[np.int64]:
    """Return the sorted indices of the records that repeat none before them."""
    flat, zero = x.reshape(len(x), -1), np.float32(0)
    first: dict[bytes, int] = {}
    for index, row in enumerate(flat):
        content = (row + zero).tobytes()  # −0 and 0 are one number with two encodings
        first.setdefault(hashlib.blake2b(content, digest_size=16).digest(), index)
    kept = np.fromiter(first.values(), dtype=np.int64)
    if radius == 0:
        return kept
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(radius=radius).fit(flat[kept])
    alive = np.ones(len(kept), dtype=bool)
    for index, near in enumerate(search.radius_neighbors(return_distance=False)):
        if alive[index]:
            alive[near[near > index]] = False
    return kept[alive]


def _redraw(
    y: NDArray[np.int64], num_classes: int, fraction: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    chosen = rng.choice(len(y), size=round(fraction * len(y)), replace=False)
    noisy = y.copy()
    noisy[chosen] = rng.integers(num_classes, size=len(chosen))
    return noisy
