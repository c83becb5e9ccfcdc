"""Records of the server's own, for rules that hold clients against what it learns itself."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from fedmia.records import Examples, Params
from fedmia.seeding import generator, torch_seed
from fedmia.site import Trainer
from fedmia.training import FlatModel, accuracy


@dataclass(frozen=True)
class Root:
    """A root data set, the federation's model and the recipe by which its clients train.

    Parameters
    ----------
    model
        The architecture, with its initial weights.
    trainer
        How a client trains, and the server on its own records; defences of clients are theirs.
    records
        At least one, none of which a client holds or an attack is asked about.
    seed
        Of the experiment.
    per_round
        How many of them an update is made of, the next ones in turn; ``None``: all. With as many as
        a client has, the server takes as many steps as clients do, and its update is as long.
    """

    model: nn.Module
    trainer: Trainer
    records: Examples
    seed: int
    per_round: int | None = None

    def __len__(self) -> int:
        return len(self.records)

    def first(self, count: int) -> "Root":
        """Return the same with the first so many records."""
        return replace(self, records=self.records[:count])

    def update(self, params: Params, server_round: int) -> dict[str, NDArray[Any]]:
        """Return what training on the records changes of ``params``, the floating arrays alone."""
        model, turn = self._loaded(params), self._turn(server_round)
        x, y = torch.from_numpy(turn.x), torch.from_numpy(turn.y)
        torch.default_generator.manual_seed(torch_seed(self.seed, "root layers", server_round))
        self.trainer.fit(model, x, y, generator(self.seed, "root batches", server_round))
        after = model.view()
        return {name: after[name] - params[name] for name in self._floating}

    def accuracy(self, params: Params) -> float:
        """Return the share of the records that ``params`` classify correctly."""
        return accuracy(self._loaded(params).module, self.records)

    @torch.no_grad()
    def loss(self, params: Params) -> float:
        """Return the mean cross-entropy of the records under ``params``, in evaluation mode."""
        module = self._loaded(params).module.eval()
        logits = module(torch.from_numpy(self.records.x))
        return float(cross_entropy(logits, torch.from_numpy(self.records.y)))

    def at(self, vector: NDArray[np.floating[Any]]) -> dict[str, NDArray[Any]]:
        """Return the model whose floating arrays are a vector's coordinates, in their order.

        Parameters
        ----------
        vector
            All floating arrays, flattened, (d,). Arrays of integers are those of the initial model.
        """
        params, start = dict(self._initial), 0
        for name in self._floating:
            value = self._initial[name]
            piece = vector[start : start + value.size]
            params[name] = piece.reshape(value.shape).astype(value.dtype)
            start += value.size
        return params

    def flat(self, params: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the floating arrays as one vector, (d,), as :meth:`at` reads it."""
        pieces = [params[name].reshape(-1) for name in self._floating]
        return np.concatenate(pieces, dtype=np.float32)

    def _turn(self, server_round: int) -> Examples:
        there = len(self.records)
        count = min(self.per_round or there, there)
        return self.records[(np.arange(count) + (server_round - 1) * count) % there]

    @cached_property
    def _trained(self) -> FlatModel:
        return FlatModel(self.model)

    @cached_property
    def _initial(self) -> dict[str, NDArray[Any]]:
        state = self.model.state_dict()
        return {name: value.detach().cpu().numpy().copy() for name, value in state.items()}

    @property
    def _floating(self) -> list[str]:
        return [n for n, v in self._initial.items() if np.issubdtype(v.dtype, np.floating)]

    def _loaded(self, params: Params) -> FlatModel:
        self._trained.load(params)
        return self._trained
