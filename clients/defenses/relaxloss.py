"""RelaxLoss: the training loss is held at a level instead of being driven to zero.

D. Chen, N. Yu, M. Fritz, "RelaxLoss: Defending Membership Inference Attacks without Losing
Utility", ICLR 2022, arXiv 2207.05801. With L the mean loss of a batch and α its target, a step

* descends, if L ≥ α;
* ascends, ``loss = −L``, if L < α in an even epoch;
* flattens posteriors, if L < α in an odd one: the target of a record is the p of its own class, and
  the remainder spread evenly over the others.

Epochs are counted over all rounds: with one epoch a round, a count that began anew would never be
odd.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from flwr.app import ConfigRecord, Context
from torch import Tensor

from fedmia.errors import expect
from fedmia.regularized import Session, adding
from fedmia.site import Trainer
from fedmia.training import FlatModel

_STATE = "relaxloss"


@dataclass(frozen=True)
class RelaxLoss:
    """Holds the loss of a client's batches near a level.

    The number of epochs is kept in the client's state.

    Parameters
    ----------
    alpha
        The level, in nats, of the mean cross-entropy of a batch.

    Raises
    ------
    ConfigError
        If alpha is not above 0 and finite.
    """

    alpha: float = 0.5
    regularizes: ClassVar = True

    def __post_init__(self) -> None:
        expect(0 < self.alpha < math.inf, "alpha", self.alpha, "more than 0 and finite")

    def trains(self, trainer: Trainer, context: Context) -> Trainer:
        """Return the recipe with the relaxed loss."""
        return adding(trainer, _Relaxing(self.alpha, context))


@dataclass(frozen=True)
class _Relaxing:
    alpha: float
    context: Context

    def begin(self, model: FlatModel, x: Tensor, y: Tensor, rng: np.random.Generator) -> Session:
        return _Session(self.alpha, self.context)


class _Session(Session):
    def __init__(self, alpha: float, context: Context) -> None:
        self._alpha, self._context = alpha, context
        state = context.state.config_records.get(_STATE)
        self._done = int(str(state["epochs"])) if state else 0

    def residual(
        self, logits: Tensor, targets: Tensor, delta: Tensor, losses: Tensor
    ) -> tuple[Tensor, Tensor]:
        if float(losses.mean()) >= self._alpha:
            return delta, losses
        if self._done % 2 == 0:
            return delta.neg_(), losses
        return flattening(logits, targets), losses

    def after(self, number: int) -> bool:
        self._done += 1
        self._context.state[_STATE] = ConfigRecord({"epochs": self._done})
        return False


def flattening(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the gradient of the cross-entropy against flattened posteriors, in the logits.

    Zero for the record's class, of the largest target; for the others, p less their mean.

    Parameters
    ----------
    logits, targets
        Shape (b, classes).
    """
    p = torch.softmax(logits, dim=1)
    own = targets.argmax(1, keepdim=True)
    others = (1 - p.gather(1, own)) / (p.shape[1] - 1)
    return (p - others).scatter_(1, own, 0.0)
