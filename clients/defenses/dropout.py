"""Dropout: at random, hidden units are absent from a training step.

N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: A Simple Way to
Prevent Neural Networks from Overfitting", JMLR 15, 2014. Each input of a hidden layer is zeroed
with probability p, and else divided by 1−p.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from flwr.app import Context
from torch import Tensor, nn

from fedmia.errors import expect
from fedmia.regularized import Session, adding
from fedmia.site import Trainer
from fedmia.training import FlatModel, hidden_layers


@dataclass(frozen=True)
class Dropout:
    """Drops inputs of hidden layers while a client trains; the model itself stays as it is.

    Hidden are all linear and convolutional layers but the first. The draws are those of torch's
    generator, which is seeded by client and round.

    Parameters
    ----------
    p
        With which an input is dropped.

    Raises
    ------
    ConfigError
        If p is not in (0, 1).
    """

    p: float = 0.5
    regularizes: ClassVar = True

    def __post_init__(self) -> None:
        expect(0 < self.p < 1, "p", self.p, "in (0, 1)")

    def check_model(self, model: nn.Module) -> None:
        """Raise ``ConfigError`` if the model has no hidden layer."""
        allowed = "a model with two linear or convolutional layers or more: the first keeps its "
        allowed += "inputs"
        expect(bool(hidden_layers(model)), "model", type(model).__name__, allowed)

    def trains(self, trainer: Trainer, context: Context) -> Trainer:
        """Return the recipe with dropout."""
        return adding(trainer, _Dropping(self.p))


@dataclass(frozen=True)
class _Dropping:
    p: float

    def begin(self, model: FlatModel, x: Tensor, y: Tensor, rng: np.random.Generator) -> Session:
        return _Session(self.p, model)


class _Session(Session):
    def __init__(self, p: float, model: FlatModel) -> None:
        self._open = ExitStack()
        self._open.enter_context(model.hidden_scaled(lambda a: _kept(a, p)))

    def end(self) -> None:
        self._open.close()


def _kept(a: Tensor, p: float) -> Tensor:
    """Return 0 with probability p and else 1/(1−p), of the shape of ``a``."""
    return torch.rand_like(a).ge_(p).div_(1 - p)
