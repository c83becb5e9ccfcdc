"""Any image or tabular data set of the Hugging Face Hub, or a local copy of one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmia.datasets.base import Dataset, DatasetSource
from fedmia.datasets.columns import categories, to_dataset
from fedmia.datasets.images import to_array
from fedmia.errors import ConfigError, expect

_SAVED = ("state.json", "dataset_dict.json")
"""Files by which a folder written with ``save_to_disk`` is known."""


@dataclass(frozen=True, kw_only=True)
class Hub(DatasetSource):
    """One split, read through ``flwr-datasets`` (extra ``hub``), as images or as a table.

    With ``HF_HUB_OFFLINE=1`` only what is in the local cache is used, and anything else is refused
    at once.

    Attributes
    ----------
    name
        Data set on the Hub, e.g. ``uoft-cs/cifar10``.
    path
        Folder with a local copy, used instead of ``name``: one written with ``save_to_disk``, or
        any that ``datasets.load_dataset`` takes (Parquet or CSV files, image folders).
    subset, split
        Configuration and split of the data set.
    image
        Column of the picture; ``None`` for tabular data.
    features
        Columns of tabular data, ``None``: all numeric ones but ``label`` and ``owner``.
    label, owner
        Columns of the class and of the natural owner (``None``: no owners).
    size, grayscale
        Square size in pixels that pictures are stretched to (``None``: as they are); one channel
        instead of three.
    standardise
        Whether numeric columns of tabular data get mean 0 and standard deviation 1.
    num_records
        Records to keep, drawn at random; ``None``: all.
    """

    name: str | None = None
    path: str | None = None
    subset: str | None = None
    split: str = "train"
    image: str | None = None
    features: Sequence[str] | None = None
    label: str = "label"
    owner: str | None = None
    size: int | None = None
    grayscale: bool = False
    standardise: bool = True
    num_records: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(bool(self.name or self.path), "name", self.name, "a name on the Hub, or path=FOLDER")
        expect(self.size is None or self.size >= 1, "size", self.size, "null or at least 1 pixel")
        enough = self.num_records is None or self.num_records >= 1
        expect(enough, "num_records", self.num_records, "null or at least 1")

    @property
    def _source(self) -> str:
        return f"path={self.path}" if self.path else f"name={self.name}"

    def read(self, rng: np.random.Generator) -> Dataset:
        """Return the split, or ``num_records`` of it drawn from ``rng``."""
        data = self._open()
        known = ", ".join(data.column_names)
        for key, column in (("image", self.image), ("label", self.label), ("owner", self.owner)):
            exists = column is None or column in data.column_names
            expect(exists, key, column, f"one of the columns {known}")
        expect(len(data) > 0, "split", self.split, "at least one record")
        if self.num_records is not None and self.num_records < len(data):
            data = data.select(np.sort(rng.choice(len(data), self.num_records, replace=False)))
        dataset = self._table(data) if self.image is None else self._images(data)
        names = getattr(data.features[self.label], "names", None)
        if names is None:
            return dataset
        y = np.asarray(data[self.label][:], dtype=np.int64)  # the data set's own class order
        expect(bool((y >= 0).all()), "label", self.label, "a class of every record (−1 is none)")
        return replace(dataset, y=y, class_names=tuple(names))

    def _open(self) -> Any:
        try:
            from datasets import load_from_disk
            from flwr_datasets import FederatedDataset
        except ImportError:
            needed = "the extra 'hub': pip install 'fedmia[hub]'"
            raise ConfigError(f"{self._source}: expected {needed}") from None
        folder = Path(self.path or "").expanduser()
        expect(self.path is None or folder.is_dir(), "path", self.path, "an existing folder")
        try:
            if self.path and any((folder / file).is_file() for file in _SAVED):
                loaded = load_from_disk(str(folder))
                return loaded[self.split] if isinstance(loaded, dict) else loaded
            return FederatedDataset(
                dataset=str(folder) if self.path else self.name,
                subset=self.subset,
                partitioners={self.split: 1},
                shuffle=False,
            ).load_split(self.split)
        except Exception as error:  # these libraries raise some twenty types for a user's mistakes
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            allowed = f"a data set that can be read, with a split '{self.split}'"
            raise ConfigError(f"{self._source}: expected {allowed} ({reason})") from None

    def _table(self, data: Any) -> Dataset:
        frame = data.to_pandas()
        frame.index += 1
        return to_dataset(
            frame, self._source, self.label, self.features, self.owner, self.standardise
        )

    def _images(self, data: Any) -> Dataset:
        pictures = data.select_columns([self.image])
        first = self._pixels(pictures[0][self.image], 1)
        x = np.empty((len(data), *first.shape), dtype=np.float32)
        for row, record in enumerate(pictures):
            pixels = self._pixels(record[self.image], row + 1)
            allowed = f"a number of pixels, pictures differ: {first.shape}, {pixels.shape}"
            expect(pixels.shape == first.shape, "size", self.size, allowed)
            x[row] = pixels
        frame = data.select_columns([c for c in (self.label, self.owner) if c]).to_pandas()
        frame.index += 1
        class_names, y = categories(frame[self.label], self._source)
        owners = ((), None) if self.owner is None else categories(frame[self.owner], self._source)
        return Dataset(x, y, class_names, owners[1], owners[0])

    def _pixels(self, picture: Any, row: int) -> NDArray[np.float32]:
        allowed = f"a column of pictures, row {row} holds {type(picture).__name__}"
        expect(hasattr(picture, "convert"), "image", self.image, allowed)
        return to_array(picture, self.size, self.grayscale)
