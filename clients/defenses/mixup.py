"""Mixup: every step sees mixtures of records, none of them as it is.

H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR
2018, arXiv 1710.09412: with λ ~ Beta(α, α) for each batch and a random permutation j(i) of it, a
step sees ``λ x_i + (1−λ) x_j(i)`` with the target ``λ t_i + (1−λ) t_j(i)``.
"""

import math
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
class Mixup:
    """Trains on mixtures of two records of a batch, and of their labels.

    Parameters
    ----------
    alpha
        Of the Beta distribution of λ: near 0 records stay almost as they are, 1 is uniform, and
        the larger, the nearer to half and half.

    Raises
    ------
    ConfigError
        If alpha is not above 0 and finite.
    """

    alpha: float = 1.0
    regularizes: ClassVar = True

    def __post_init__(self) -> None:
        expect(0 < self.alpha < math.inf, "alpha", self.alpha, "more than 0 and finite")

    def trains(self, trainer: Trainer, context: Context) -> Trainer:
        """Return the recipe with mixtures in the place of records."""
        return adding(trainer, _Mixing(self.alpha))


@dataclass(frozen=True)
class _Mixing:
    alpha: float

    def begin(self, model: FlatModel, x: Tensor, y: Tensor, rng: np.random.Generator) -> Session:
        return _Session(self.alpha, rng)


@dataclass
class _Session(Session):
    alpha: float
    rng: np.random.Generator

    def batch(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        share = float(self.rng.beta(self.alpha, self.alpha))
        other = torch.from_numpy(self.rng.permutation(len(x))).to(x.device)
        return torch.lerp(x[other], x, share), torch.lerp(targets[other], targets, share)
