"""Train a federation under observation: strategy, grid, vantage and transcript put together."""

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedmia.arrays import to_params, to_record
from fedmia.canaries.watch import Watch
from fedmia.errors import ConfigError
from fedmia.observe import (
    ABSENT,
    BudgetSpentError,
    DivergedError,
    EveryClientFailedError,
    Fault,
    ObservedGrid,
)
from fedmia.recorder import Recorder
from fedmia.records import Observation, Params
from fedmia.seeding import generator
from fedmia.stack import wrapped
from fedmia.stage import Stage
from fedmia.suspicion import Flag, Groups, against_members
from fedmia.training import FlatModel, accuracy, first_nonfinite
from fedmia.transcript import TranscriptWriter
from fedmia.truth import Truth

OnRound = Callable[[int, float | None], None]
"""Called after each round with its number and the global model's test accuracy."""

_POLL_S = 0.1

log = logging.getLogger(__name__)


@dataclass
class Training:
    """What came of training, complete or not.

    ``nodes`` maps node ids to client numbers: ground truth, for the evaluation alone. ``failure``
    says in one line why training stopped early, ``None`` if it did not. ``stopped`` is the first
    round that a privacy budget did not allow, and why; ``participations`` has the rounds of each
    client number in which it may have sent something. ``abandoned`` are rounds that left the model
    as it was, ``fallbacks`` those in which a rule could not be applied, and why; ``flags`` are what
    strategies have against single clients, ``reputations`` what they trust the nodes after each
    round, ``isolations`` whom they then leave out. ``clipped`` is what a strategy that hides
    updates says of its rounds, ``masked_bytes`` are the most that a client sent it in one;
    ``clip_shares`` are the noisy shares of updates within an adaptive clip, ``clip_aim`` is the
    share aimed at and their noise; ``answer_bytes`` are those of each answer; ``watch`` saw what
    its models show of canary clients, if there are any.
    """

    nodes: dict[int, int]
    params: Params
    rounds: int = 0
    faults: list[Fault] = field(default_factory=list)
    test_accuracy: list[tuple[int, float]] = field(default_factory=list)
    round_seconds: list[float] = field(default_factory=list)
    failure: str | None = None
    stopped: tuple[int, str] | None = None
    participations: dict[int, list[int]] = field(default_factory=dict)
    abandoned: list[tuple[int, str]] = field(default_factory=list)
    fallbacks: list[tuple[int, str]] = field(default_factory=list)
    flags: list[Flag] = field(default_factory=list)
    reputations: list[tuple[int, dict[int, float]]] = field(default_factory=list)
    isolations: list[tuple[int, frozenset[int]]] = field(default_factory=list)
    clipped: list[tuple[int, float]] = field(default_factory=list)
    masked_bytes: int = 0
    watch: Watch | None = None
    answer_bytes: list[int] = field(default_factory=list)
    clip_shares: list[float] = field(default_factory=list)
    clip_aim: tuple[float, float] | None = None


def ask_nodes(grid: Grid, num_clients: int, wait_s: float = 60.0) -> dict[int, int]:
    """Wait for all clients and return which client number each node has.

    Asked before the observed federation starts, so the answers are in no transcript.

    Raises
    ------
    ConfigError
        If too few or too many nodes connect.
    RuntimeError
        If a node does not answer or two nodes give the same number.
    """
    deadline = time.monotonic() + wait_s
    while len(ids := sorted(grid.get_node_ids())) < num_clients:
        if time.monotonic() > deadline:
            raise ConfigError(
                f"num_clients={num_clients}: expected at most {len(ids)}, the nodes that connected "
                f"within {wait_s:g} s"
            )
        time.sleep(_POLL_S)
    if len(ids) > num_clients:
        raise ConfigError(f"num_clients={num_clients}: expected {len(ids)}, the nodes connected")
    messages = [Message(RecordDict(), node_id, "query.partition") for node_id in ids]
    nodes: dict[int, int] = {}
    for reply in grid.send_and_receive(messages):
        if reply.has_error():
            raise RuntimeError(f"a client could not be set up: {reply.error.reason}")
        number = next(iter(reply.content.config_records.values()))["partition-id"]
        nodes[reply.metadata.src_node_id] = int(str(number))
    if sorted(nodes.values()) != list(range(num_clients)):
        raise RuntimeError(f"expected clients 0..{num_clients - 1}, got {sorted(nodes.values())}")
    return nodes


def train(stage: Stage, grid: Grid, run_dir: Path, on_round: OnRound) -> Training:
    """Train and record into ``run_dir``; what stops training early is reported, not raised."""
    nodes = ask_nodes(grid, stage.config.num_clients)
    Truth(nodes, stage.split).save(run_dir)
    vantage = stage.stand(nodes)
    writer = TranscriptWriter(
        run_dir / "transcript", vantage.name, vantage.shows, vantage.hides_updates
    )
    strategy = stage.strategy()
    recorder = Recorder(vantage, writer, strategy)
    model = FlatModel(stage.model)
    training = Training(nodes, model.params())
    training.watch = Watch(stage.canary_clients) if stage.canary_clients else None
    held_out = stage.held_out
    clock = time.monotonic()

    def record(observation: Observation) -> None:
        sent = [masked.words.nbytes for masked in observation.masked]
        training.masked_bytes = max([training.masked_bytes, *sent])
        recorder.record(observation)

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        nonlocal clock
        recorder.settle()
        params = to_params(arrays)
        if (name := first_nonfinite(params)) is not None:
            raise ArithmeticError(
                f"round {server_round}: '{name}' of the global model is not finite"
            )
        if training.watch:
            training.watch.see(server_round, params)
        model.load(params)
        measured = accuracy(model.module, held_out)
        training.params, training.rounds = params, server_round
        training.test_accuracy.append((server_round, measured))
        if server_round:
            now = time.monotonic()
            training.round_seconds.append(now - clock)
            clock = now
            on_round(server_round, measured)
        else:
            clock = time.monotonic()
        return None

    rejects = any(getattr(part, "rejects_updates", False) for _, part in wrapped(strategy))
    observed = ObservedGrid(grid, record, abandons=_goes_on(strategy), rejects=rejects)
    try:
        with _seeded(stage.seed):
            strategy.start(
                grid=observed,
                initial_arrays=to_record(training.params),
                num_rounds=stage.config.num_rounds,
                evaluate_fn=evaluate,
            )
    except BudgetSpentError as error:
        log.warning("Training stops before round %d: %s", error.round, error)
        training.stopped = error.round, str(error)
    except DivergedError as error:
        training.failure = f"training diverged: client {nodes[error.node_id]}, {error}"
    except (EveryClientFailedError, ArithmeticError) as error:
        training.failure = str(error)
    except Exception as error:
        log.exception("training stopped after round %d", training.rounds)
        training.failure = f"after round {training.rounds}: {type(error).__name__}: {error}"
    recorder.settle()
    training.faults = observed.faults
    training.answer_bytes = observed.answer_bytes
    training.participations = {nodes[n]: rounds for n, rounds in observed.participations.items()}
    parts = (part for _, part in wrapped(strategy))
    said = (s for part in parts if (s := getattr(part, "stopped", None)))
    training.stopped = next(said, training.stopped)
    for _, part in wrapped(strategy):
        if aim := getattr(part, "aim", None):
            training.clip_aim = aim
            training.clip_shares = [share for _, share in getattr(part, "shares", ())]
    groups: Groups = getattr(strategy, "groups", {})

    def of(head: int) -> Sequence[int]:
        return groups.get(head, (head,))

    for _, part in wrapped(strategy):
        training.abandoned += getattr(part, "abandoned", ())
        training.fallbacks += getattr(part, "fallbacks", ())
        training.flags += against_members(getattr(part, "flags", ()), groups)
        training.reputations += [
            (number, {node: trust for head, trust in values.items() for node in of(head)})
            for number, values in getattr(part, "reputations", ())
        ]
        training.isolations += [
            (number, frozenset(node for head in heads for node in of(head)))
            for number, heads in getattr(part, "isolations", ())
        ]
    training.clipped = list(getattr(strategy, "clipped", ()))
    if training.failure is None and len(training.abandoned) == stage.config.num_rounds:
        first, reason = training.abandoned[0]
        training.failure = f"every round was abandoned; first reason: round {first}: {reason}"
    if training.failure is None and observed.rounds_seen == 0:
        training.failure = f"no client answered in any of {stage.config.num_rounds} rounds"
        failed = [f.reason for f in observed.faults if ABSENT not in f.reason]
        training.failure += f"; first reason: {failed[0]}" if failed else ""
    if training.failure is None and vantage.view(Observation(0, training.params, ())):
        writer.finish(training.params)
    return training


def _goes_on(strategy: Strategy) -> bool:
    """Whether a round in which every client failed does not end training."""
    return any(
        hasattr(part, "abandoned") or getattr(part, "goes_on", False)
        for _, part in wrapped(strategy)
    )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generator from which Flower's strategies sample clients."""
    state: Any = random.getstate()
    random.seed(int(generator(seed, "strategy").integers(2**63)))
    try:
        yield
    finally:
        random.setstate(state)
