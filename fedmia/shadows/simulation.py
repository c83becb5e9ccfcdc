"""Shadow clients that defend themselves as the federation's clients do."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from flwr.app import Context, RecordDict
from numpy.typing import NDArray
from torch import Tensor

from fedmia.observe import SPENT
from fedmia.site import Trainer, TrainingDefense
from fedmia.training import FlatModel

log = logging.getLogger(__name__)

FIRST_CLIENT = 2**20
"""The number of the first shadow client, beyond all real ones: noise that a defence derives from
its client's number is the adversary's own, not what the federation's clients drew."""


@runtime_checkable
class Perturbing(Protocol):
    """A defence that sends something else than the update."""

    def perturbed(
        self, update: Mapping[str, NDArray[Any]], rng: np.random.Generator
    ) -> Mapping[str, NDArray[Any]]:
        """Return what is sent in an update's place in a first round.

        Parameters
        ----------
        update
            The floating arrays of ``w_k − w``, by name.
        rng
            Of all random choices.
        """


@dataclass(frozen=True)
class Simulation:
    """Defences as the adversary repeats them.

    Parameters
    ----------
    defenses
        Outermost first, as in ``client.defenses``. Those that are a
        :class:`~fedmia.site.TrainingDefense` change the recipe, those that are :class:`Perturbing`
        the update; others have no part in it.
    """

    defenses: tuple[object, ...]

    @property
    def trains(self) -> bool:
        """Whether clients train otherwise than by the plain recipe."""
        return any(isinstance(defense, TrainingDefense) for defense in self.defenses)

    @property
    def perturbs(self) -> bool:
        """Whether clients send something else than their updates."""
        return any(isinstance(defense, Perturbing) for defense in self.defenses)

    def recipe(self, trainer: Trainer, context: Context) -> Trainer:
        """Return how a client trains in one round; its state is in the context."""
        for defense in reversed(self.defenses):
            if isinstance(defense, TrainingDefense):
                trainer = defense.trains(trainer, context)
        return _WhileAllowed(trainer)

    def sent(
        self, update: Mapping[str, NDArray[Any]], rng: np.random.Generator
    ) -> Mapping[str, NDArray[Any]]:
        """Return what is sent in an update's place."""
        for defense in reversed(self.defenses):
            if isinstance(defense, Perturbing):
                update = defense.perturbed(update, rng)
        return update


def context_of(client: int, num_clients: int) -> Context:
    """Return the context of a shadow client that was never asked."""
    return Context(
        run_id=0,
        node_id=FIRST_CLIENT + client,
        node_config={
            "partition-id": FIRST_CLIENT + client,
            "num-partitions": FIRST_CLIENT + num_clients,
        },
        state=RecordDict(),
        run_config={},
    )


@dataclass(frozen=True)
class _WhileAllowed:
    """Trains as long as the client's privacy budget allows it; then the model stays as it is."""

    trainer: Trainer

    def fit(self, model: FlatModel, x: Tensor, y: Tensor, rng: np.random.Generator) -> float:
        """Train in place and return the mean loss, NaN where there was no training."""
        try:
            return self.trainer.fit(model, x, y, rng)
        except Exception as error:
            if SPENT not in str(error):
                raise
            log.debug("a shadow client stays as it is: %s", error)
            return math.nan
