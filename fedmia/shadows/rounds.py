"""Rounds of federated averaging in many federations at once.

H. B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas, "Communication-Efficient
Learning of Deep Networks from Decentralized Data", AISTATS 2017, Algorithm 1:
``w^{t+1} = Σ_k (n_k / n) w_k^t``, here with all clients in every round.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from flwr.app import Context
from torch import Tensor

from fedmia.records import Examples
from fedmia.seeding import generator, torch_seed
from fedmia.shadows.fitting import Fitter, Job
from fedmia.shadows.simulation import Simulation, context_of
from fedmia.shadows.stacked import Stacked
from fedmia.site import Trainer

Shards = Sequence[Sequence[Examples]]
"""By federation and client."""


class OnRound(Protocol):
    """Is told of each round before it is averaged."""

    def __call__(self, server_round: int, models: Stacked, clients: Stacked) -> None:
        """Take ``w^t`` of each federation, (F, *shape), and ``w_k^t``, (F·K, *shape)."""


def average(
    fitter: Fitter,
    models: Stacked,
    shards: Shards,
    num_rounds: int,
    seed: int,
    on_round: OnRound | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    simulation: Simulation | None = None,
) -> Stacked:
    """Train F federations for some rounds and return their models, (F, *shape).

    Parameters
    ----------
    fitter
        Trains the clients.
    models
        What each federation starts from, (F, *shape).
    shards
        Who holds what.
    num_rounds
        T.
    seed
        Of the order of batches and of random layers.
    on_round
        Sees every client's model; these are kept for a whole round only if there is one.
    on_progress
        Called after each round with its number and T.
    simulation
        What the clients do to defend themselves; ``None`` for nothing.
    """
    flat = [(f, k, shard) for f, row in enumerate(shards) for k, shard in enumerate(row)]
    records = [(torch.tensor(shard.x), torch.tensor(shard.y)) for _, _, shard in flat]
    totals = [sum(map(len, row)) for row in shards]
    share = torch.tensor([len(shard) / totals[f] for f, _, shard in flat])
    owner = torch.tensor([f for f, _, _ in flat])
    contexts = [context_of(i, len(flat)) for i in range(len(flat))]
    for t in range(1, num_rounds + 1):
        jobs = [
            Job(
                f,
                *records[i],
                generator(seed, "shadow batches", f, k, t),
                torch_seed(seed, "shadow layers", f, k, t),
                _recipe(simulation, fitter.trainer, contexts[i]),
            )
            for i, (f, k, _) in enumerate(flat)
        ]
        following = {name: torch.zeros_like(v, dtype=_wide(v)) for name, v in models.items()}
        clients: Stacked = {}
        if on_round is not None:
            clients = {name: v.new_empty(len(jobs), *v.shape[1:]) for name, v in models.items()}
        for positions, fitted in fitter.fit(models, jobs):
            rngs = [generator(seed, "shadow defences", *flat[i][:2], t) for i in positions]
            trained = _sent(simulation, models, owner[positions], fitted, rngs)
            for name, value in trained.items():
                sum_ = following[name]
                part = share[positions].to(sum_.dtype).view(-1, *[1] * (value.ndim - 1))
                sum_.index_add_(0, owner[positions], value.to(sum_.dtype) * part)
                if clients:
                    clients[name][positions] = value
        if on_round is not None:
            on_round(t, models, clients)
        models = {name: v.to(models[name].dtype) for name, v in following.items()}
        if on_progress is not None:
            on_progress(t, num_rounds)
    return models


def _recipe(simulation: Simulation | None, trainer: Trainer, context: Context) -> Trainer | None:
    """Return a client's own recipe, ``None`` where it is that of everybody."""
    return simulation.recipe(trainer, context) if simulation and simulation.trains else None


def _sent(
    simulation: Simulation | None,
    models: Stacked,
    rows: Tensor,
    trained: Stacked,
    rngs: Sequence[np.random.Generator],
) -> Stacked:
    """Return the models of m clients, (m, *shape), as whoever gets their updates has them.

    ``rows`` (m,) says from which of the ``models`` each of them started.
    """
    if simulation is None or not simulation.perturbs:
        return trained
    sent = {name: value.clone() for name, value in trained.items()}
    for i, (row, rng) in enumerate(zip(rows.tolist(), rngs, strict=True)):
        starts = {k: v[row] for k, v in models.items() if v.is_floating_point()}
        update = {k: (trained[k][i] - start).numpy() for k, start in starts.items()}
        for name, change in simulation.sent(update, rng).items():
            moved = torch.from_numpy(np.asarray(change, dtype=update[name].dtype))
            sent[name][i] = starts[name] + moved
    return sent


def _wide(value: Tensor) -> torch.dtype:
    return value.dtype if value.is_floating_point() else torch.float64
