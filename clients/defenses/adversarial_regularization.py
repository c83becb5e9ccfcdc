"""Adversarial regularisation: the model is trained against an attack that is trained beside it.

M. Nasr, R. Shokri, A. Houmansadr, "Machine Learning with Membership Privacy using Adversarial
Regularization", ACM CCS 2018, arXiv 1807.05852: ``min_f max_h L_D(f) + λ·½ [E_D log h(x, y, f(x)) +
E_D' log(1 − h(x, y, f(x)))]``, with members D and reference records D'.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from flwr.app import Context
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, one_hot

from fedmia.arrays import to_params, to_record
from fedmia.attacks.networks import AdamW, seeded
from fedmia.errors import expect
from fedmia.regularized import Session, adding
from fedmia.seeding import generator
from fedmia.site import Trainer
from fedmia.training import FlatModel

_STATE = "adversarial_regularization"


@dataclass(frozen=True)
class AdversarialRegularization:
    """Trains so that a network h cannot tell the client's records from some that it holds out.

    Before every step of f, h climbs ``½ [log h]`` of the batch and ``½ [log(1 − h)]`` of as many
    held-out records; then f descends ``ℓ + (λ/2) log h`` of the batch. No step of f is taken on the
    reference records D', the same ones in every round. h sees the predicted probabilities and the
    label, and is kept in the client's state from round to round; its optimiser starts anew.

    Parameters
    ----------
    weight
        λ.
    reference
        Share of the client's records held out as D', rounded; at least one, and one is left.
    steps
        Of h before each step of f.
    hidden
        Widths of the hidden layers of h.
    learning_rate
        Of h, by AdamW.
    seed
        Of the first weights of h, and of which records are held out.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    weight: float = 3.0
    reference: float = 0.3
    steps: int = 1
    hidden: Sequence[int] = field(default_factory=lambda: [64, 32])
    learning_rate: float = 1e-3
    seed: int = 0
    regularizes: ClassVar = True

    def __post_init__(self) -> None:
        expect(0 < self.weight < math.inf, "weight", self.weight, "more than 0 and finite")
        expect(0 < self.reference < 1, "reference", self.reference, "in (0, 1)")
        expect(self.steps >= 1, "steps", self.steps, "at least 1")
        widths, allowed = list(self.hidden), "one or more positive integers"
        expect(bool(widths) and all(w > 0 for w in widths), "hidden", widths, allowed)
        rate = self.learning_rate
        expect(0 < rate < math.inf, "learning_rate", rate, "more than 0 and finite")

    def check_records(self, records: Iterable[int]) -> None:
        """Raise ``ConfigError`` if a client has a single record."""
        fewest = min((n for n in records if n > 0), default=2)
        allowed = f"clients with two records or more, one to hold out; one has {fewest}"
        expect(fewest >= 2, "reference", self.reference, allowed)

    def held_out(self, count: int) -> int:
        """Return how many of so many records are held out."""
        return max(0, min(max(1, round(self.reference * count)), count - 1))

    def trains(self, trainer: Trainer, context: Context) -> Trainer:
        """Return the recipe with the attack beside it."""
        return adding(trainer, _Against(self, context))


@dataclass(frozen=True)
class _Against:
    defense: AdversarialRegularization
    context: Context

    def begin(self, model: FlatModel, x: Tensor, y: Tensor, rng: np.random.Generator) -> Session:
        client = int(self.context.node_config["partition-id"])
        own = generator(self.defense.seed, _STATE, client)
        order = own.permutation(len(y))
        count = self.defense.held_out(len(y))
        classes = model.num_classes(x)
        with seeded(own):
            h = inference_network(classes, self.defense.hidden).to(model.device)
        return _Session(self.defense, self.context, model, x, y, order[:count], classes, h, rng)


class _Session(Session):
    def __init__(
        self,
        defense: AdversarialRegularization,
        context: Context,
        model: FlatModel,
        x: Tensor,
        y: Tensor,
        held_out: NDArray[np.int64],
        classes: int,
        h: nn.Module,
        rng: np.random.Generator,
    ) -> None:
        index = torch.from_numpy(held_out).to(x.device)
        self._kept = torch.ones(len(y), dtype=torch.bool, device=x.device)
        self._kept[index] = False
        self._x, self._labels = x[index], one_hot(y[index], classes).to(model.flat.dtype)
        self._defense, self._context = defense, context
        self._model, self._rng, self._h = model, rng, h
        if (kept := context.state.array_records.get(_STATE)) is not None:
            h.load_state_dict({k: torch.tensor(v) for k, v in to_params(kept).items()})
        self._optimizer = AdamW(h.parameters())

    def records(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x[self._kept], y[self._kept]

    def residual(
        self, logits: Tensor, targets: Tensor, delta: Tensor, losses: Tensor
    ) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            for _ in range(self._defense.steps):
                self._climb(logits, targets)
            z = logits.detach().requires_grad_()
            gained = (self._defense.weight / 2) * logsigmoid(self._h(inputs(z, targets)))
            (gradient,) = torch.autograd.grad(gained.sum(), z)
        return delta.add_(gradient), losses + gained.detach()

    def end(self) -> None:
        state = {k: v.detach().cpu().numpy() for k, v in self._h.state_dict().items()}
        self._context.state[_STATE] = to_record(state)

    def _climb(self, logits: Tensor, targets: Tensor) -> None:
        chosen = torch.from_numpy(self._rng.choice(len(self._x), len(logits))).to(logits.device)
        with torch.no_grad():
            others = self._model.module(self._x[chosen])
        inside = logsigmoid(self._h(inputs(logits, targets)))
        outside = logsigmoid(-self._h(inputs(others, self._labels[chosen])))
        self._optimizer.step(-(inside + outside).mean() / 2, self._defense.learning_rate)


def inference_network(classes: int, hidden: Sequence[int]) -> nn.Sequential:
    """Return h as log-odds: from (n, 2·classes), of :func:`inputs`, to (n,)."""
    layers: list[nn.Module] = []
    width = 2 * classes
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU()]
        width = units
    return nn.Sequential(*layers, nn.Linear(width, 1), nn.Flatten(0))


def inputs(logits: Tensor, targets: Tensor) -> Tensor:
    """Return what h sees of predictions and labels, both (n, classes): (n, 2·classes)."""
    return torch.cat([logits.softmax(1), targets], dim=1)
