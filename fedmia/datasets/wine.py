"""Chemical analyses of wines from three growers (UCI; bundled with scikit-learn)."""

from dataclasses import dataclass

import numpy as np

from fedmia.datasets.base import Dataset, DatasetSource
from fedmia.datasets.scaling import standardise


@dataclass(frozen=True, kw_only=True)
class Wine(DatasetSource):
    """178 wines, 13 measurements, 3 classes (59, 71, 48 records); features standardised.

    Source: S. Aeberhard, M. Forina, *Wine*, UCI Machine Learning Repository, 1992.
    """

    def read(self, rng: np.random.Generator) -> Dataset:
        """Return the bundled records; ``rng`` is not used."""
        from sklearn.datasets import load_wine

        bunch = load_wine()
        return Dataset(
            x=standardise(bunch.data).astype(np.float32),
            y=bunch.target.astype(np.int64),
            class_names=tuple(str(name) for name in bunch.target_names),
        )
