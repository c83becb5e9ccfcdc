"""Breast tumours, benign or malignant (UCI; bundled with scikit-learn)."""

from dataclasses import dataclass

import numpy as np

from fedmia.datasets.base import Dataset, DatasetSource
from fedmia.datasets.scaling import standardise


@dataclass(frozen=True, kw_only=True)
class BreastCancer(DatasetSource):
    """569 tumours, 30 measurements, 2 classes (212, 357 records); features standardised.

    Source: W. Wolberg et al., *Breast Cancer Wisconsin (Diagnostic)*, UCI Machine Learning
    Repository, 1993.
    """

    def read(self, rng: np.random.Generator) -> Dataset:
        """Return the bundled records; ``rng`` is not used."""
        from sklearn.datasets import load_breast_cancer

        bunch = load_breast_cancer()
        return Dataset(
            x=standardise(bunch.data).astype(np.float32),
            y=bunch.target.astype(np.int64),
            class_names=tuple(str(name) for name in bunch.target_names),
        )
