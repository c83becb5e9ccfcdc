"""What a client has at hand when a message arrives."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from flwr.app import Context
from torch import Tensor

from fedmia.seeding import generator, torch_seed
from fedmia.training import FlatModel


class Trainer(Protocol):
    """How a model is trained on a client's records, e.g. :class:`fedmia.training.LocalSGD`."""

    def fit(self, model: FlatModel, x: Tensor, y: Tensor, rng: np.random.Generator) -> float:
        """Train ``model`` in place and return the mean loss."""


@runtime_checkable
class TrainingDefense(Protocol):
    """A defence that changes how a client trains."""

    def trains(self, trainer: Trainer, context: Context) -> Trainer:
        """Return the recipe for one ``train`` message.

        Parameters
        ----------
        trainer
            The recipe without this defence; with those that stand after it in
            ``client.defenses``.
        context
            The client's own. What must outlive the message belongs in its ``state``.
        """


@dataclass(frozen=True)
class Site:
    """One client's records, the model it trains, the recipe, and its own randomness.

    ``x`` has shape (n, *input_shape), ``y`` shape (n,), both on the model's device.
    """

    partition_id: int
    x: Tensor
    y: Tensor
    model: FlatModel
    trainer: Trainer
    seed: int

    def rng(self, purpose: str, server_round: int) -> np.random.Generator:
        """Return this client's generator for one purpose in one round."""
        return generator(self.seed, purpose, self.partition_id, server_round)

    def fit(self, server_round: int) -> float:
        """Train the model on the client's records and return the mean loss of the last epoch.

        Layers that draw random numbers (dropout) get the client's own stream for the round.
        """
        seed = torch_seed(self.seed, "layers", self.partition_id, server_round)
        # torch.manual_seed would also walk the call stack for every kind of accelerator.
        torch.default_generator.manual_seed(seed)
        if self.x.is_cuda:
            torch.cuda.manual_seed(seed)
        return self.trainer.fit(self.model, self.x, self.y, self.rng("batches", server_round))
