"""Handwritten digits of 43 people, 8×8 pixels (UCI; bundled with scikit-learn)."""

from dataclasses import dataclass

import numpy as np

from fedmia.datasets.base import Dataset, DatasetSource


@dataclass(frozen=True, kw_only=True)
class Digits(DatasetSource):
    """1,797 images of shape (1, 8, 8), grey values 0 to 16 scaled to [0, 1], 10 classes.

    Source: E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine
    Learning Repository, 1998 (its test part, as bundled with scikit-learn).
    """

    def read(self, rng: np.random.Generator) -> Dataset:
        """Return the bundled images; ``rng`` is not used."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return Dataset(
            x=(bunch.images[:, None] / 16).astype(np.float32),
            y=bunch.target.astype(np.int64),
            class_names=tuple(str(name) for name in bunch.target_names),
        )
