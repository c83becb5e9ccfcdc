"""Synthetic shopping baskets with a dial for how much of the label must be memorised."""

from dataclasses import dataclass

import numpy as np

from fedmia.datasets.base import Dataset, DatasetSource
from fedmia.errors import expect


@dataclass(frozen=True, kw_only=True)
class PurchaseLike(DatasetSource):
    """Binary records of a few typical baskets and a tail of records like no other.

    Every class has a random basket of ``num_features`` bits. A typical record is its class's
    basket with each bit flipped with probability ``bit_noise``; an atypical one, a fraction
    ``memorisation`` of every class on average, has fair random bits, so that nothing but seeing
    that very record tells its label. Where baskets are far apart (many features, little noise), no
    model does better on unseen records than ``1 − memorisation·(C−1)/C``, while a model that fits
    its training records reaches 1 on them: the gap is what membership inference lives on.

    The shape (600 bits, 100 classes) is that of the Purchase-100 task of R. Shokri et al.,
    *Membership Inference Attacks Against Machine Learning Models*, S&P 2017, arXiv 1610.05820; the
    tail of singletons is that of V. Feldman, *Does Learning Require Memorization?*, STOC 2020,
    arXiv 1906.05271, section 2.

    Attributes
    ----------
    num_samples, num_features, num_classes
        Size of the table; classes are equally frequent up to one record.
    memorisation
        Fraction of atypical records, in [0, 1].
    bit_noise
        Probability that a typical record differs from its basket in one bit, in [0, 0.5].
    """

    num_samples: int = 5000
    num_features: int = 600
    num_classes: int = 100
    memorisation: float = 0.3
    bit_noise: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.num_features >= 1, "num_features", self.num_features, "at least 1")
        expect(self.num_classes >= 2, "num_classes", self.num_classes, "at least 2")
        enough = self.num_samples >= self.num_classes
        allowed = f"at least {self.num_classes}, one record a class"
        expect(enough, "num_samples", self.num_samples, allowed)
        expect(0 <= self.memorisation <= 1, "memorisation", self.memorisation, "a number in [0, 1]")
        expect(0 <= self.bit_noise <= 0.5, "bit_noise", self.bit_noise, "a number in [0, 0.5]")

    def read(self, rng: np.random.Generator) -> Dataset:
        """Return a table drawn from ``rng``."""
        basket = rng.random((self.num_classes, self.num_features)) < 0.5
        y = rng.permutation(np.arange(self.num_samples, dtype=np.int64) % self.num_classes)
        atypical = rng.random(self.num_samples) < self.memorisation
        flip = np.where(atypical, 0.5, self.bit_noise)[:, None]
        flipped = rng.random((self.num_samples, self.num_features), dtype=np.float32) < flip
        names = tuple(f"basket {index}" for index in range(self.num_classes))
        return Dataset(x=(basket[y] ^ flipped).astype(np.float32), y=y, class_names=names)
