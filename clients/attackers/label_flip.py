"""Attackers that train as all others do, on labels that are wrong: poisoned data, honest code."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from flwr.app import Context, Message
from torch import Tensor

from clients.attackers.base import Attacker
from clients.defenses.hiding import Handler
from fedmia.errors import expect
from fedmia.site import Trainer
from fedmia.training import FlatModel

_FLIPS = "label_flip"
_TO = ("mirrored", "next")


@dataclass(frozen=True, kw_only=True)
class LabelFlip(Attacker):
    """Has the recipe see other labels, each of the C classes mapped to another one.

    Defences that change the recipe see the wrong labels too. Since nothing but the labels is
    changed, the update is one that an honest client with such records would send.

    Parameters
    ----------
    to
        ``mirrored``: y becomes C − 1 − y, where the middle one of an odd number of classes stays;
        ``next``: y becomes (y + 1) mod C.
    """

    to: str = "mirrored"

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.to in _TO, "to", self.to, " or ".join(_TO))

    def attack(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Have the message answered under a context that :meth:`trains` knows again."""
        marked = {**context.node_config, _FLIPS: True}
        return call_next(message, replace(context, node_config=marked))

    def trains(self, trainer: Trainer, context: Context) -> Trainer:
        """Return the recipe on flipped labels, for a message that is attacked."""
        return _Flipped(self.to, trainer) if context.node_config.get(_FLIPS) else trainer


@dataclass(frozen=True)
class _Flipped:
    """Trains by a recipe on other labels."""

    to: str
    recipe: Trainer

    def fit(self, model: FlatModel, x: Tensor, y: Tensor, rng: np.random.Generator) -> float:
        """Train in place and return the mean loss on the wrong labels."""
        classes = _classes(model, x)
        flipped = classes - 1 - y if self.to == "mirrored" else (y + 1) % classes
        return self.recipe.fit(model, x, flipped, rng)


@torch.no_grad()
def _classes(model: FlatModel, x: Tensor) -> int:
    """Return C, the number of the model's outputs; no random number is drawn."""
    return int(model.module.eval()(x[:1]).shape[1])
