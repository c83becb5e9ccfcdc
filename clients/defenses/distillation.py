"""Self-distillation: a record's label is what teachers say of it that were not trained on it.

X. Tang, S. Mahloujifar, L. Song, V. Shejwalkar, M. Nasr, A. Houmansadr, P. Mittal, "Mitigating
Membership Inference Attacks by Self-Distillation Through a Novel Ensemble Architecture" (SELENA),
USENIX Security 2022, arXiv 2110.08324: Split-AI and distillation, at each client, in each round.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
import torch
from flwr.app import Context
from numpy.typing import NDArray
from torch import Tensor

from fedmia.errors import expect
from fedmia.regularized import Session, adding
from fedmia.site import Trainer
from fedmia.training import FlatModel, LocalSGD


@dataclass(frozen=True)
class Distillation:
    """Trains on soft labels of teachers, none of which was trained on the records that it labels.

    The client's records are dealt into so many parts, class by class and anew in every round. For
    each part a teacher starts from the model that was received and trains on the other parts, by
    plain local SGD of the client's settings; its predictions ``softmax(z / T)`` are the labels of
    this part. The paper has K sub-models, of which L have not seen a record; here they are one of
    ``parts``. With ``weight`` 1 no step of the model that is sent sees a hard label. Nothing
    outlives a round.

    Parameters
    ----------
    parts
        K, teachers of a client; at most one a record.
    temperature
        T, by which the teachers' logits are divided.
    weight
        Of the teacher's label; the record's own has the rest.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    parts: int = 2
    temperature: float = 1.0
    weight: float = 1.0
    regularizes: ClassVar = True

    def __post_init__(self) -> None:
        expect(self.parts >= 2, "parts", self.parts, "at least 2")
        temperature = self.temperature
        expect(0 < temperature < math.inf, "temperature", temperature, "more than 0 and finite")
        expect(0 < self.weight <= 1, "weight", self.weight, "in (0, 1]")

    def check_records(self, records: Iterable[int]) -> None:
        """Raise ``ConfigError`` if a client has a single record."""
        fewest = min((n for n in records if n > 0), default=2)
        allowed = f"clients with two records or more, one has {fewest}"
        expect(fewest >= 2, "parts", self.parts, allowed)

    def trains(self, trainer: Trainer, context: Context) -> Trainer:
        """Return the recipe with the teachers' labels."""
        names = [f.name for f in fields(LocalSGD)]
        settings = {name: getattr(trainer, name) for name in names if hasattr(trainer, name)}
        return adding(trainer, _Teaching(self, LocalSGD(**settings)))


@dataclass(frozen=True)
class _Teaching:
    defense: Distillation
    recipe: LocalSGD

    def begin(self, model: FlatModel, x: Tensor, y: Tensor, rng: np.random.Generator) -> Session:
        return _Session(self.defense, self.recipe, model, rng)


@dataclass
class _Session(Session):
    defense: Distillation
    recipe: LocalSGD
    model: FlatModel
    rng: np.random.Generator

    def labels(self, x: Tensor, targets: Tensor) -> Tensor:
        start, y = self.model.params(), targets.argmax(1)
        teacher = FlatModel(self.model.module, str(self.model.device))
        soft = torch.empty_like(targets)
        dealt = torch.from_numpy(parts(y.cpu().numpy(), self.defense.parts, self.rng))
        for part in range(int(dealt.max()) + 1):
            own = (dealt == part).to(x.device)
            others = ~own
            teacher.load(start)
            self.recipe.fit(teacher, x[others], y[others], self.rng)
            with torch.no_grad():
                logits = teacher.module.eval()(x[own])
            soft[own] = (logits / self.defense.temperature).softmax(1)
        return torch.lerp(targets, soft, self.defense.weight)


def parts(y: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the part of each record, (n,), dealt at random and class by class.

    A part without regard to classes would leave its teacher with fewer records of the very classes
    that are asked about: what all teachers say together would be against them.

    Parameters
    ----------
    y
        Labels, (n,).
    count
        Of parts, at most n are used.
    """
    order = rng.permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    dealt = np.empty_like(y)
    dealt[order] = np.arange(len(y)) % min(count, len(y))
    return dealt
