"""A user's own table, in a file on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmia.datasets.base import Dataset, DatasetSource
from fedmia.datasets.columns import to_dataset
from fedmia.datasets.files import read_frame


@dataclass(frozen=True, kw_only=True)
class Table(DatasetSource):
    """Rows of a CSV (with a header), Parquet or NPZ file; features are flat, shape (d,).

    Attributes
    ----------
    path
        The file; its ending says the format. An ``.npz`` array (n, d) named ``x`` is the columns
        ``x[0]`` … ``x[d−1]``.
    label
        Column of the class: names or whole numbers.
    features
        Columns to learn from; categorical ones become one 0/1 feature a category. ``None``: all
        numeric columns but ``label`` and ``owner``.
    owner
        Column of the natural owner, for ``partition=by_column``; ``None``: no owners.
    standardise
        Whether numeric columns are brought to mean 0 and standard deviation 1, over all rows.
    """

    path: str
    label: str = "label"
    features: Sequence[str] | None = None
    owner: str | None = None
    standardise: bool = True

    def read(self, rng: np.random.Generator) -> Dataset:
        """Return all rows in file order; ``rng`` is not used."""
        frame, source = read_frame(self.path), f"path={self.path}"
        return to_dataset(frame, source, self.label, self.features, self.owner, self.standardise)
