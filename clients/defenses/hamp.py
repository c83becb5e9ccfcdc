"""HAMP, its training part: labels of high entropy, and predictions that are rewarded for theirs.

Z. Chen, K. Pattabiraman, "Overconfidence is a Dangerous Thing: Mitigating Membership Inference
Attacks by Enforcing Less Confident Prediction", NDSS 2024, arXiv 2307.01610. With C classes, the
loss of a record is ``KL(t ‖ p) − α H(p)``, where the target t gives its class q and every other
class ``(1−q)/(C−1)``, with q such that ``H(t) = γ log C``.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from flwr.app import Context
from scipy.optimize import brentq
from torch import Tensor

from fedmia.errors import expect
from fedmia.regularized import Session, adding
from fedmia.site import Trainer
from fedmia.training import FlatModel


@dataclass(frozen=True)
class Hamp:
    """Trains on soft labels of a set entropy, and against confident predictions.

    The mean over a batch is of the KL divergence itself; the authors' code also divides that by C,
    which makes its α as strong as ``C·α`` here. What they do to the outputs of the finished model
    is ``release=hamp_output``. Nothing outlives a round.

    Parameters
    ----------
    gamma
        γ, entropy of the labels as a share of the largest.
    alpha
        α, weight of the entropy of predictions, in nats.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    gamma: float = 0.9
    alpha: float = 0.05
    regularizes: ClassVar = True

    def __post_init__(self) -> None:
        expect(0 < self.gamma < 1, "gamma", self.gamma, "in (0, 1)")
        expect(0 <= self.alpha < math.inf, "alpha", self.alpha, "at least 0 and finite")

    def trains(self, trainer: Trainer, context: Context) -> Trainer:
        """Return the recipe with soft labels and the regulariser."""
        return adding(trainer, _Softening(self.gamma, self.alpha))


def confidence(gamma: float, classes: int) -> float:
    """Return q, the label's own probability, with which its entropy is ``γ log C``."""

    def excess(q: float) -> float:
        rest = (1 - q) / (classes - 1)
        return -q * math.log(q) - (1 - q) * math.log(rest) - gamma * math.log(classes)

    most = 1 - 1e-12
    return most if excess(most) >= 0 else float(brentq(excess, 1 / classes, most))


@dataclass(frozen=True)
class _Softening:
    gamma: float
    alpha: float

    def begin(self, model: FlatModel, x: Tensor, y: Tensor, rng: np.random.Generator) -> Session:
        return _Session(self.gamma, self.alpha)


@dataclass
class _Session(Session):
    gamma: float
    alpha: float

    def labels(self, x: Tensor, targets: Tensor) -> Tensor:
        q = confidence(self.gamma, targets.shape[1])
        rest = (1 - q) / (targets.shape[1] - 1)
        return rest + (q - rest) * targets

    def residual(
        self, logits: Tensor, targets: Tensor, delta: Tensor, losses: Tensor
    ) -> tuple[Tensor, Tensor]:
        log_p = logits.log_softmax(1)
        p = log_p.exp()
        entropy = -(p * log_p).sum(1)
        own = -targets.xlogy(targets).sum(1)
        delta += self.alpha * p * (log_p + entropy[:, None])
        return delta, losses - own - self.alpha * entropy
