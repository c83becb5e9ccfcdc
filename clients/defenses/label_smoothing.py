"""Label smoothing: no label is quite certain.

C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens, Z. Wojna, "Rethinking the Inception Architecture for
Computer Vision", CVPR 2016, arXiv 1512.00567, section 7: with C classes the target of a record is
``(1−ε) t + ε/C``.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from flwr.app import Context
from torch import Tensor

from fedmia.errors import expect
from fedmia.regularized import Session, adding
from fedmia.site import Trainer
from fedmia.training import FlatModel


@dataclass(frozen=True)
class LabelSmoothing:
    """Trains on labels mixed with the uniform distribution.

    Parameters
    ----------
    epsilon
        Share of the uniform distribution. No privacy parameter.

    Raises
    ------
    ConfigError
        If epsilon is not in (0, 1).
    """

    epsilon: float = 0.1
    regularizes: ClassVar = True

    def __post_init__(self) -> None:
        expect(0 < self.epsilon < 1, "epsilon", self.epsilon, "in (0, 1)")

    def trains(self, trainer: Trainer, context: Context) -> Trainer:
        """Return the recipe with smoothed labels."""
        return adding(trainer, _Smoothing(self.epsilon))


@dataclass(frozen=True)
class _Smoothing:
    epsilon: float

    def begin(self, model: FlatModel, x: Tensor, y: Tensor, rng: np.random.Generator) -> Session:
        return _Session(self.epsilon)


@dataclass
class _Session(Session):
    epsilon: float

    def epoch(self, number: int, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return x, (1 - self.epsilon) * targets + self.epsilon / targets.shape[1]
