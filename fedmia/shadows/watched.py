"""Shadow federations recorded as the adversary's vantage would have recorded them."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmia.knowledge import ShadowFederation, View
from fedmia.records import Examples, Observation, Params, Update, difference
from fedmia.seeding import generator
from fedmia.shadows.fitting import Fitter
from fedmia.shadows.rounds import average
from fedmia.shadows.simulation import Simulation
from fedmia.shadows.stacked import Stacked
from fedmia.signals import Signals
from fedmia.transcript import Transcript, TranscriptError, TranscriptWriter
from fedmia.vantages import Participant, Vantage

Parts = Sequence[NDArray[np.int64]]
"""Positions of each client's records in the pool."""


def watch(
    fitter: Fitter,
    starts: Stacked,
    pool: Examples,
    shards: Sequence[Parts],
    num_rounds: int,
    vantage: Vantage,
    seed: int,
    folder: Path,
    on_progress: Callable[[int, int], None] | None = None,
    simulation: Simulation | None = None,
) -> list[ShadowFederation]:
    """Return shadow federations, trained unless ``folder`` holds their transcripts.

    Parameters
    ----------
    fitter, starts, num_rounds, on_progress, simulation
        As for :func:`average`.
    pool
        The records; those that no client of a federation holds are its non-members.
    shards
        By federation and client.
    vantage
        From where to watch; nodes are numbered as clients are.
    seed
        Of batches and of the order of the candidates.
    folder
        Holds one folder a federation, and its signals in that.
    """
    nodes = tuple(range(len(shards[0])))
    if (transcripts := _read(folder, len(shards), vantage, nodes, num_rounds)) is None:
        partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        seen = vantage, partial
        _record(fitter, starts, pool, shards, num_rounds, *seen, seed, on_progress, simulation)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        transcripts = [Transcript(_place(folder, f)) for f in range(len(shards))]
    return [
        _federation(fitter, transcript, pool, parts, vantage, generator(seed, "candidates", f))
        for f, (transcript, parts) in enumerate(zip(transcripts, shards, strict=True))
    ]


def _record(
    fitter: Fitter,
    starts: Stacked,
    pool: Examples,
    shards: Sequence[Parts],
    num_rounds: int,
    vantage: Vantage,
    folder: Path,
    seed: int,
    on_progress: Callable[[int, int], None] | None,
    simulation: Simulation | None,
) -> None:
    writers = [
        TranscriptWriter(_place(folder, f), vantage.name, vantage.shows, vantage.hides_updates)
        for f in range(len(shards))
    ]
    num_clients = len(shards[0])
    nodes = tuple(range(num_clients))

    def write(server_round: int, models: Stacked, clients: Stacked) -> None:
        for f, (writer, parts) in enumerate(zip(writers, shards, strict=True)):
            params = _row(models, f)
            updates = tuple(
                Update(k, len(parts[k]), difference(_row(clients, f * num_clients + k), params))
                for k in nodes
            )
            if seen := vantage.view(Observation(server_round, params, nodes, updates)):
                writer.append(seen)

    records = [[pool[part] for part in parts] for parts in shards]
    models = average(fitter, starts, records, num_rounds, seed, write, on_progress, simulation)
    for f, writer in enumerate(writers):
        if seen := vantage.view(Observation(0, _row(models, f), ())):
            writer.finish(seen.params)


def _federation(
    fitter: Fitter,
    transcript: Transcript,
    pool: Examples,
    parts: Parts,
    vantage: Vantage,
    rng: np.random.Generator,
) -> ShadowFederation:
    """Return one federation, its candidates in an order that says nothing of membership."""
    holder = np.full(len(pool), -1)
    for k, part in enumerate(parts):
        holder[part] = k
    order = rng.permutation(len(pool))
    nodes: tuple[int | None, ...] = tuple(range(len(parts)))
    if not vantage.per_client:
        if isinstance(vantage, Participant):
            order = order[holder[order] != vantage.node_id]
        nodes, holder = (None,), np.minimum(holder, 0)
    candidates = pool[order]
    signals = Signals(transcript, fitter.model, candidates, transcript.path / "signals")
    return ShadowFederation(View(transcript, signals), candidates, nodes, holder[order])


def _read(
    folder: Path, count: int, vantage: Vantage, nodes: tuple[int, ...], num_rounds: int
) -> list[Transcript] | None:
    """Return the transcripts in a folder, nothing unless all of them are there and whole."""
    try:
        transcripts = [Transcript(_place(folder, f)) for f in range(count)]
    except TranscriptError:
        return None
    rounds = num_rounds if vantage.view(Observation(1, {}, nodes)) else 0
    final = vantage.view(Observation(0, {}, ())) is not None
    whole = all(
        not t.damaged and len(t) == rounds and (t.final is not None) == final for t in transcripts
    )
    return transcripts if whole else None


def _place(folder: Path, federation: int) -> Path:
    return folder / f"shadow_{federation}"


def _row(models: Stacked, index: int) -> Params:
    return {name: value[index].numpy() for name, value in models.items()}
