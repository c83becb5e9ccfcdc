"""Train many clients by one recipe: together where the model allows it, else one by one."""

import copy
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedmia.shadows.stacked import Stacked, StackedModel, orders
from fedmia.signals.routes import chunk_size
from fedmia.site import Trainer
from fedmia.training import FlatModel, LocalSGD, torch_threads

log = logging.getLogger(__name__)

_CHUNK_BYTES = 12 * 2**20
"""Weights and momentum trained together; they stay in a core's share of the caches."""


class Job(NamedTuple):
    """A client to train: the row of its first weights, its records, the order of its batches.

    ``x`` has shape (n, *input_shape), ``y`` shape (n,); ``seed`` is that of random layers.
    ``trainer`` is a recipe of its own.
    """

    row: int
    x: Tensor
    y: Tensor
    rng: np.random.Generator
    seed: int
    trainer: Trainer | None = None


class Fitter:
    """How the clients of shadow federations are trained.

    With :class:`LocalSGD`, and a network that gives the same numbers either way, as many models
    as fit the caches take their steps together, on each of torch's threads others. Otherwise
    one client follows the other.

    Parameters
    ----------
    model
        The architecture.
    trainer
        The recipe.
    x, y
        A few records to try it on.
    """

    def __init__(self, model: nn.Module, trainer: Trainer, x: Tensor, y: Tensor) -> None:
        self.model = copy.deepcopy(model)
        self.trainer = trainer
        self._random = False
        reason = self._objection(x[:2], y[:2])
        self.together = not reason
        self._most = 1
        if reason:
            log.info("shadow models are trained one after another (%s)", reason)
        else:
            size = sum(p.nbytes for p in model.parameters())
            rows = chunk_size(self.model.eval(), x[:1])
            batch = trainer.batch_size if isinstance(trainer, LocalSGD) else 1
            self._most = max(1, min(_CHUNK_BYTES // (2 * size), rows // batch))
            log.info("shadow models are trained up to %d at a time", self._most)

    def fit(self, starts: Stacked, jobs: Sequence[Job]) -> Iterator[tuple[list[int], Stacked]]:
        """Train every job's client from its row of ``starts``.

        Yields
        ------
        The positions of some of the jobs, and their weights after training; in an order that
        depends on the jobs and on the number of torch's threads alone.
        """
        if not self.together or any(job.trainer is not None for job in jobs):
            model = FlatModel(self.model)
            for i, job in enumerate(jobs):
                yield [i], self._one(model, starts, job)
            return
        # Random layers share one stream, which threads would draw from in any order.
        threads = 1 if self._random else torch.get_num_threads()
        chunks = self._chunks(jobs, threads)
        if threads == 1 or len(chunks) == 1:
            for chunk in chunks:
                yield chunk, self._many(starts, [jobs[i] for i in chunk])
            return
        with torch_threads(1), ThreadPoolExecutor(threads) as pool:
            trained = pool.map(lambda c: self._many(starts, [jobs[i] for i in c]), chunks)
            yield from zip(chunks, trained, strict=True)

    def _chunks(self, jobs: Sequence[Job], threads: int) -> list[list[int]]:
        by_size = sorted(range(len(jobs)), key=lambda i: len(jobs[i].y))
        chunks = []
        for _, same in groupby(by_size, key=lambda i: len(jobs[i].y)):
            group = np.array(list(same))
            parts = max(ceil(len(group) / self._most), min(threads, len(group)))
            chunks += [part.tolist() for part in np.array_split(group, parts)]
        return chunks

    def _one(self, model: FlatModel, starts: Stacked, job: Job) -> Stacked:
        model.load({name: value[job.row].numpy() for name, value in starts.items()})
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(job.seed)
            (job.trainer or self.trainer).fit(model, job.x, job.y, job.rng)
        return {name: torch.from_numpy(v)[None] for name, v in model.params().items()}

    def _many(self, starts: Stacked, jobs: Sequence[Job]) -> Stacked:
        assert isinstance(self.trainer, LocalSGD)
        rows = torch.tensor([job.row for job in jobs])
        weights = {name: value[rows] for name, value in starts.items()}
        drawn = orders(len(jobs[0].y), self.trainer.local_epochs, [job.rng for job in jobs])
        x, y = torch.stack([job.x for job in jobs]), torch.stack([job.y for job in jobs])
        if self._random:
            torch.default_generator.manual_seed(jobs[0].seed)
        StackedModel(self.model, weights, self.trainer).fit(x, y, drawn)
        return {name: value.detach() for name, value in weights.items()}

    def _objection(self, x: Tensor, y: Tensor) -> str:
        """Return why models cannot be trained together, nothing if they can."""
        if type(self.trainer) is not LocalSGD:
            return f"trainer {type(self.trainer).__name__} is not LocalSGD"
        if next(self.model.buffers(), None) is not None:
            return "the model has buffers"
        if len(list(self.model.named_parameters(remove_duplicate=False))) != len(
            list(self.model.parameters())
        ):
            return "the model shares parameters"
        state = self.model.state_dict()
        starts = {k: torch.stack([v, v + 0.01]) for k, v in state.items()}
        try:
            with torch.random.fork_rng(devices=[]):
                before = torch.get_rng_state()
                self._step(starts, x, y, training=True)
                self._random = not torch.equal(before, torch.get_rng_state())
                moved = self._step(starts, x, y, training=False)
        except Exception as error:  # any failure only says that this is not for the model
            return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        if all(self._agree(starts, moved, row, x, y) for row in range(2)):
            return ""
        return "its numbers differ from those of one model at a time"

    def _step(self, starts: Stacked, x: Tensor, y: Tensor, training: bool) -> Stacked:
        assert isinstance(self.trainer, LocalSGD)
        weights = {name: value.clone() for name, value in starts.items()}
        stacked = StackedModel(self.model, weights, self.trainer)
        stacked.net.train(training)
        # each model sees the records in another order, so that none can serve for the other
        stacked.step(torch.stack([x, x.flip(0) * 2]), torch.stack([y, y.flip(0)]))
        return {name: value.detach() for name, value in weights.items()}

    def _agree(self, starts: Stacked, moved: Stacked, row: int, x: Tensor, y: Tensor) -> bool:
        assert isinstance(self.trainer, LocalSGD)
        model = FlatModel(self.model)
        model.load({name: value[row].numpy() for name, value in starts.items()})
        model.module.eval()
        x, y = (x, y) if row == 0 else (x.flip(0) * 2, y.flip(0))
        model.differentiate(cross_entropy(model.module(x), y))
        step = -self.trainer.lr * (model.grad + self.trainer.weight_decay * model.flat)
        trained = [k for k, p in self.model.named_parameters() if p.requires_grad]
        ours = torch.cat([(moved[k][row] - starts[k][row]).flatten() for k in trained])
        return torch.allclose(ours, step, rtol=0, atol=1e-3 * float(step.abs().max()))
