"""Data sampling: every local epoch sees a fresh random share of the client's records.

Fewer epochs see a record, so that less of each is memorised; over the rounds all of them are seen.
A record is hidden among the others, not protected by an ε: for that the draws have to be secret
and the steps noised (:mod:`clients.defenses.dp_sgd`).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from flwr.app import Context
from torch import Tensor

from fedmia.errors import expect
from fedmia.regularized import Session, adding
from fedmia.site import Trainer
from fedmia.training import FlatModel


@dataclass(frozen=True)
class DataSampling:
    """Trains each epoch on records drawn anew, without replacement.

    Parameters
    ----------
    share
        Of the records, rounded to the nearest number of them and at least one; 1 for all.

    Raises
    ------
    ConfigError
        If the share is not in (0, 1].
    """

    share: float = 0.5
    regularizes: ClassVar = True

    def __post_init__(self) -> None:
        expect(0 < self.share <= 1, "share", self.share, "in (0, 1]")

    def trains(self, trainer: Trainer, context: Context) -> Trainer:
        """Return the recipe with the records drawn."""
        return adding(trainer, _Drawing(self.share))


@dataclass(frozen=True)
class _Drawing:
    share: float

    def begin(self, model: FlatModel, x: Tensor, y: Tensor, rng: np.random.Generator) -> Session:
        return _Session(self.share, rng)


@dataclass
class _Session(Session):
    share: float
    rng: np.random.Generator

    def epoch(self, number: int, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        count = max(1, round(self.share * len(x)))
        drawn = self.rng.choice(len(x), count, replace=False, shuffle=False)
        index = torch.from_numpy(drawn).to(x.device)
        return x[index], targets[index]
