"""What an adversary that knows the recipe trains: reference models and shadow federations.

R. Shokri, M. Stronati, C. Song, V. Shmatikov, "Membership Inference Attacks Against Machine
Learning Models", IEEE S&P 2017, arXiv 1610.05820 (shadow training); N. Carlini et al.,
"Membership Inference Attacks From First Principles", IEEE S&P 2022, arXiv 2112.03570 (each record
in as many reference models as any other).

Shadow federations average the models of all their clients in every round, whatever strategy the
federation has; of its defences they repeat what a ``simulation`` names. Records, strategy and the
clients' randomness are the adversary's own.
"""

import atexit
import copy
import hashlib
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedmia.errors import expect
from fedmia.knowledge import References, ShadowFederation, View
from fedmia.records import Capability, Examples, Params
from fedmia.seeding import generator, torch_seed
from fedmia.shadows import references
from fedmia.shadows.draws import federations, scaled
from fedmia.shadows.fitting import Fitter
from fedmia.shadows.rounds import average
from fedmia.shadows.simulation import Simulation
from fedmia.shadows.stacked import Stacked
from fedmia.shadows.watched import watch
from fedmia.signals.lenses import Lens
from fedmia.site import Trainer
from fedmia.vantages import Vantage

log = logging.getLogger(__name__)

SCHEMA = 1
"""Part of every key on disk: raise it when the same settings come to train other models."""


@dataclass(eq=False)
class ShadowTraining:
    """Train by the federation's recipe; implements :class:`fedmia.knowledge.Shadows`.

    Parameters
    ----------
    model
        The architecture. Where the vantage shows rounds, its weights are what the federation
        starts from and shadow federations start from them too; elsewhere each draws its own.
    trainer
        How a client trains.
    auxiliary
        The adversary's own records.
    candidates
        The records in question, for ``online`` training.
    shard_sizes
        Records of each of the K clients; lowered in proportion where they come to more than half
        of the records to draw from.
    num_rounds
        T.
    num_models
        S, the reference models.
    num_federations
        Shadow federations watched round by round.
    vantage
        From where they are watched; their nodes are numbered as clients are, from 0.
    seed
        Of all draws, batches and weights.
    folder
        Keeps what was trained; ``None`` for a temporary one.
    on_progress
        Called with the rounds done and their number in each training.
    simulation
        What shadow clients do to defend themselves; ``None`` for nothing.
    lens
        How updates and gradients of shadow federations are compared; ``None``: as they are.

    Attributes
    ----------
    seconds
        Time spent training so far.

    Raises
    ------
    ConfigError
        If a number is not positive; when training is asked for, if there are too few records.
    """

    model: nn.Module
    trainer: Trainer
    auxiliary: Examples
    candidates: Examples
    shard_sizes: Sequence[int]
    num_rounds: int
    num_models: int
    num_federations: int
    vantage: Vantage
    seed: int
    folder: Path | None = None
    on_progress: Callable[[int, int], None] | None = None
    simulation: Simulation | None = None
    lens: Lens | None = None
    seconds: float = field(default=0.0, init=False)
    _models: dict[str, References] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("num_rounds", "num_models", "num_federations"):
            expect(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        sizes = list(self.shard_sizes)
        expect(len(sizes) > 0 and min(sizes) > 0, "shard_sizes", sizes, "one or more, each above 0")

    def federations(self, online: bool = False) -> References:
        """Return the S global models after T rounds of shadow federations.

        With ``online`` the records are drawn from the candidates. Half of the models hold a
        candidate if a federation is as large as half of the candidates or larger, and is filled up
        with auxiliary records; else it is the share of the candidates that a federation holds.
        """
        key = f"federations online={online}"
        if key not in self._models:
            with self._timed():
                starts = self._starts(self.num_models)
                self._models[key] = self._references(
                    key, starts, self.shard_sizes, self.num_rounds, online
                )
        return self._models[key]

    def clients(self, start: Params, size: int, online: bool = False) -> References:
        """Return S models trained for one round from ``start`` on ``size`` records each.

        The training sets are the same for every start.
        """
        expect(size >= 1, "size", size, "at least 1")
        key = f"clients {_digest(*start, *start.values())} {size} online={online}"
        if key not in self._models:
            with self._timed():
                starts = {
                    name: torch.from_numpy(np.array(v)).expand(self.num_models, *v.shape)
                    for name, v in start.items()
                }
                self._models[key] = self._references(key, starts, [size], 1, online)
        return self._models[key]

    def transcripts(self) -> Sequence[ShadowFederation]:
        """Return shadow federations on auxiliary records as they look from the vantage.

        The records of all but the curious participant's are the members, the auxiliary rest the
        non-members.
        """
        with self._timed():
            return self._watched

    @cached_property
    def _fitter(self) -> Fitter:
        few = (self.auxiliary if len(self.auxiliary) > 1 else self.candidates)[:2]
        x, y = torch.tensor(few.x), torch.tensor(few.y)
        return Fitter(self.model, self.trainer, x, y)

    @cached_property
    def _home(self) -> Path:
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                log.warning("shadow models are not kept: %s", error)
            else:
                return self.folder
        # Transcripts and reference models may outlive this object, but not the process.
        home = tempfile.mkdtemp(prefix="fedmia-shadows-")
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        return Path(home)

    def _references(
        self, key: str, starts: Stacked, sizes: Sequence[int], num_rounds: int, online: bool
    ) -> References:
        pools = [self.candidates, self.auxiliary] if online else [self.auxiliary]
        sizes = self._sizes(sizes, pools)
        shards = self._shards(f"{key.split()[0]} {online}", pools, sizes, self.num_models)
        pool = _joined(pools)
        identity = self._identity(key, pool, sizes, num_rounds, shards, *starts.values())
        file = self._home / f"{key.split()[0]}-{identity}.safetensors"
        if (found := references.load(file, self.model, pool)) is not None:
            return found
        members = np.zeros((len(shards), len(pool)), dtype=np.bool_)
        for row, parts in zip(members, shards, strict=True):
            row[np.concatenate(parts)] = True
        trained = average(
            self._fitter,
            starts,
            [[pool[part] for part in parts] for parts in shards],
            num_rounds,
            torch_seed(self.seed, f"shadow {key.split()[0]}"),
            on_progress=self.on_progress,
            simulation=self.simulation,
        )
        references.save(file, trained, members)
        return references.TrainedModels(file, self.model, pool)

    @cached_property
    def _watched(self) -> list[ShadowFederation]:
        pool = self.auxiliary
        sizes = self._sizes(self.shard_sizes, [pool])
        shards = self._shards("transcripts", [pool], sizes, self.num_federations)
        starts = self._starts(self.num_federations)
        place = f"transcripts {self.vantage}"
        identity = self._identity(place, pool, sizes, self.num_rounds, shards, *starts.values())
        shadows = watch(
            self._fitter,
            starts,
            pool,
            shards,
            self.num_rounds,
            self.vantage,
            torch_seed(self.seed, "shadow transcripts"),
            self._home / f"transcripts-{identity}",
            self.on_progress,
            self.simulation,
        )
        if (lens := self.lens) is None or Capability.CLIENT_UPDATES not in self.vantage.shows:
            return shadows
        views = [View(s.view.transcript, s.view.signals.through(lens)) for s in shadows]
        return [replace(s, view=view) for s, view in zip(shadows, views, strict=True)]

    def _sizes(self, sizes: Sequence[int], pools: Sequence[Examples]) -> tuple[int, ...]:
        needed = f"at least {2 * len(sizes)} records, two for each shadow client"
        halves = sum(len(pool) // 2 for pool in pools)
        expect(halves >= len(sizes), "auxiliary", len(self.auxiliary), needed)
        lowered = scaled(sizes, 2 * halves)
        if lowered != tuple(sizes):
            log.info("shadow shards hold %d records, not %d", sum(lowered), sum(sizes))
        return lowered

    def _shards(
        self, purpose: str, pools: Sequence[Examples], sizes: Sequence[int], count: int
    ) -> list[list[NDArray[np.int64]]]:
        rng = generator(self.seed, f"shadow shards {purpose}")
        return federations([pool.y for pool in pools], sizes, count, rng)

    def _starts(self, count: int) -> Stacked:
        state = self.model.state_dict()
        if Capability.MANY_ROUNDS in self.vantage.shows:
            return {k: v.detach().cpu().expand(count, *v.shape) for k, v in state.items()}
        models = []
        with torch.random.fork_rng(devices=[]):
            for i in range(count):
                torch.default_generator.manual_seed(torch_seed(self.seed, "shadow weights", i))
                fresh = copy.deepcopy(self.model)
                for module in fresh.modules():
                    if callable(reset := getattr(module, "reset_parameters", None)):
                        reset()
                models.append(fresh.state_dict())
        return {name: torch.stack([m[name].cpu() for m in models]) for name in state}

    def _identity(self, key: str, pool: Examples, *parts: Any) -> str:
        defended = () if self.simulation is None else (self.simulation,)
        facts = SCHEMA, key, str(self.model), repr(self.trainer), self.seed, *defended
        return _digest(facts, pool.x, pool.y, *parts)[:16]

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start


def _joined(pools: Sequence[Examples]) -> Examples:
    x, y = zip(*((pool.x, pool.y) for pool in pools), strict=True)
    return Examples(np.concatenate(x), np.concatenate(y))


def _digest(*parts: Any) -> str:
    sha = hashlib.sha256()
    for part in parts:
        array = part.numpy() if isinstance(part, torch.Tensor) else part
        if isinstance(array, np.ndarray):
            sha.update(f"{array.dtype}{array.shape}".encode())
            sha.update(np.ascontiguousarray(array).data)
        else:
            sha.update(repr(part).encode())
    return sha.hexdigest()
