"""Early stopping: local training ends when records that were held out are predicted no better.

L. Prechelt, "Early Stopping -- But When?", in *Neural Networks: Tricks of the Trade*, Springer
1998: of the epochs of a round the one with the least loss on the held-out records is kept, and
training ends when so many in a row were no better.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from flwr.app import Context
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from fedmia.errors import expect
from fedmia.records import Params
from fedmia.regularized import Session, adding
from fedmia.seeding import generator
from fedmia.site import Trainer
from fedmia.training import FlatModel


@dataclass(frozen=True)
class EarlyStopping:
    """Holds out the same records of a client in every round, and stops by their loss.

    Steps are never taken on held-out records; which epoch is kept is all that depends on them.

    Parameters
    ----------
    share
        Of the records held out, rounded to the nearest number of them; at least one, and one is
        left to train on.
    patience
        Epochs without a lower loss, after which training ends.
    seed
        Of which records are held out.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    share: float = 0.2
    patience: int = 1
    seed: int = 0
    regularizes: ClassVar = True

    def __post_init__(self) -> None:
        expect(0 < self.share < 1, "share", self.share, "in (0, 1)")
        expect(self.patience >= 1, "patience", self.patience, "at least 1")

    def check_records(self, records: Iterable[int]) -> None:
        """Raise ``ConfigError`` if a client has a single record."""
        fewest = min((n for n in records if n > 0), default=2)
        allowed = f"clients with two records or more, one to hold out; one has {fewest}"
        expect(fewest >= 2, "share", self.share, allowed)

    def held_out(self, count: int) -> int:
        """Return how many of so many records are held out."""
        return max(0, min(max(1, round(self.share * count)), count - 1))

    def trains(self, trainer: Trainer, context: Context) -> Trainer:
        """Return the recipe that stops early."""
        client = int(context.node_config["partition-id"])
        return adding(trainer, _Stopping(self, client))


@dataclass(frozen=True)
class _Stopping:
    defense: EarlyStopping
    client: int

    def begin(self, model: FlatModel, x: Tensor, y: Tensor, rng: np.random.Generator) -> Session:
        order = generator(self.defense.seed, "early_stopping", self.client).permutation(len(y))
        held_out = order[: self.defense.held_out(len(y))]
        return _Session(model, x, y, held_out, self.defense.patience)


class _Session(Session):
    def __init__(
        self, model: FlatModel, x: Tensor, y: Tensor, held_out: NDArray[np.int64], patience: int
    ) -> None:
        index = torch.from_numpy(held_out).to(x.device)
        self._kept = torch.ones(len(y), dtype=torch.bool, device=x.device)
        self._kept[index] = False
        self._model, self._x, self._y = model, x[index], y[index]
        self._patience = patience
        self._least = np.inf
        self._best = 0
        self._params: Params = {}

    def records(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x[self._kept], y[self._kept]

    def after(self, number: int) -> bool:
        loss = self._loss()
        if loss < self._least:
            self._least, self._best = loss, number
            self._params = self._model.params()
        return number - self._best >= self._patience

    def end(self) -> None:
        if self._params:
            self._model.load(self._params)

    @torch.no_grad()
    def _loss(self) -> float:
        module = self._model.module.eval()
        loss = cross_entropy(module(self._x), self._y)
        module.train()
        return float(loss)
