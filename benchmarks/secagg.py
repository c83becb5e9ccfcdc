"""Secure aggregation beside plain FedAvg, on the same Ray actors and in the same run.

Clients with 20 records each train an MLP for five steps. A masked round follows each plain one,
through the same actors, with the same model: medians of wall time, and processor time of all
processes, which a busy machine disturbs less.

    python benchmarks/secagg.py [--clients 10 50] [--params 85002 1000567] [--neighbors 12 20]
    python benchmarks/secagg.py --many 1000    # a round of so many clients, and its memory

:mod:`secagg_legacy` sets it beside Flower's own.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import psutil
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

from clients.defenses.hiding import Handler
from clients.defenses.secagg_plus import SecAggPlus as Mod
from clients.honest import Honest
from fedmia.arrays import to_record
from fedmia.federation import Federation
from fedmia.grid.base import Pool
from fedmia.grid.ray import Ray
from fedmia.grid.serial import Serial
from fedmia.models.mlp import MLP
from fedmia.recording import ask_nodes
from fedmia.records import Examples
from fedmia.runlog import quiet
from fedmia.secagg.masks import add_mask, expand
from fedmia.secagg.protocol import Protocol
from fedmia.secagg.wire import RECORD
from fedmia.training import FlatModel, LocalSGD
from strategies.secagg_plus import SecAggPlus

SAMPLES, STEPS, WARM = 20, 5, 1
WIDTHS = {85_002: 256, 339_622: 546, 1_000_567: 963}
"""Of the two hidden layers, by parameters."""


class MaskedIfAsked(Mod):
    """The client's side, which lets the messages of a plain round pass."""

    def __call__(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Mask the answer to a message that has the protocol's record."""
        if RECORD in message.content:
            return super().__call__(message, context, call_next)
        return call_next(message, context)


@dataclass(frozen=True)
class Reading:
    """Seconds: of the clock, of this process, and of all actors together."""

    wall: float
    driver: float
    actors: float

    @property
    def processor(self) -> float:
        """Of all processes together."""
        return self.driver + self.actors

    def __sub__(self, other: "Reading") -> "Reading":
        return Reading(
            self.wall - other.wall, self.driver - other.driver, self.actors - other.actors
        )


class Meter:
    """Clocks and resident memory of this process and of Ray's actors."""

    def __init__(self) -> None:
        self._driver = psutil.Process()
        family = self._driver.children(recursive=True)
        self._actors = [p for p in family if p.cmdline()[:1] == ["ray::_Worker"]]

    def read(self) -> Reading:
        """Return what all clocks show now."""
        return Reading(time.perf_counter(), _spent(self._driver), sum(map(_spent, self._actors)))

    def peaks(self) -> tuple[float, float]:
        """Return the largest resident sets so far in GB: this process's, and any actor's."""
        return _peak(self._driver), max(map(_peak, self._actors))


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _peak(process: psutil.Process) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


@dataclass
class Rounds:
    """Rounds of one federation, all from the same model."""

    grid: Grid
    arrays: ArrayRecord
    number: int = 0

    def one(self, strategy: Strategy) -> None:
        """Run a round and drop its model."""
        self.number += 1
        messages = strategy.configure_train(self.number, self.arrays, ConfigRecord(), self.grid)
        replies = self.grid.send_and_receive(messages)
        arrays, _ = strategy.aggregate_train(self.number, replies)
        assert arrays is not None, "the round was abandoned"


def shards_of(clients: int) -> list[Examples]:
    """Return random records for each client."""
    rng = np.random.default_rng(0)
    return [
        Examples(rng.random((SAMPLES, 64), dtype=np.float32), rng.integers(10, size=SAMPLES))
        for _ in range(clients)
    ]


def federate(pool: Pool, protocol: Protocol, width: int, main: Callable[[Rounds], None]) -> None:
    """Call ``main`` with a federation of as many clients as the protocol's cohort."""
    clients = protocol.cohort
    shards = shards_of(clients)
    model = MLP([width, width])((64,), 10)
    trainer = LocalSGD(local_epochs=STEPS, batch_size=SAMPLES)
    app = Federation(Honest(), (MaskedIfAsked(protocol),), model, trainer, shards, seed=0)
    arrays = to_record(FlatModel(model).params())

    def begin(grid: Grid) -> None:
        ask_nodes(grid, clients)
        main(Rounds(grid, arrays))

    pool.run(app, clients, 0, begin)


def both(protocol: Protocol) -> tuple[FedAvg, SecAggPlus]:
    """Return the plain strategy and the one that wraps its like."""
    plain, wrapped = (
        FedAvg(fraction_evaluate=0.0, min_available_nodes=protocol.cohort) for _ in range(2)
    )
    return plain, SecAggPlus(wrapped, protocol)


def side_by_side(protocol: Protocol, params: int, rounds: int) -> None:
    """Print what a masked round costs beyond a plain one."""
    spent: list[list[Reading]] = [[], []]

    def main(running: Rounds) -> None:
        meter, strategies = Meter(), both(protocol)
        for _ in range(rounds):
            for strategy, readings in zip(strategies, spent, strict=True):
                start = meter.read()
                running.one(strategy)
                readings.append(meter.read() - start)

    federate(Ray(), protocol, WIDTHS[params], main)
    n = protocol.cohort
    plain, masked = (float(np.median([r.wall for r in rs[WARM:]])) for rs in spent)
    cpu = [float(np.mean([r.processor for r in rs[WARM:]])) for rs in spent]
    driver = [float(np.mean([r.driver for r in rs[WARM:]])) for rs in spent]
    print(
        f"{n:7}{params:10,}{protocol.degree:5}{plain:9.3f}{masked:9.3f}{masked / plain:7.1f}"
        f"{1000 * (masked - plain) / n:10.2f}{1000 * (cpu[1] - cpu[0]) / n:10.2f}"
        f"{1000 * (driver[1] - driver[0]) / n:10.2f}",
        flush=True,
    )


def many(clients: int, params: int) -> None:
    """Print time and memory of one plain and one masked round."""
    protocol = Protocol(clients)

    def main(running: Rounds) -> None:
        meter = Meter()
        for name, strategy in zip(("plain", "masked"), both(protocol), strict=True):
            start = meter.read()
            running.one(strategy)
            spent, (driver, actor) = meter.read() - start, meter.peaks()
            print(
                f"{name:>8}: {spent.wall:.1f} s, processor {spent.processor:.1f} s; largest "
                f"resident set {driver:.2f} GB, of an actor {actor:.2f} GB",
                flush=True,
            )

    print(f"{clients} clients, {params:,} parameters, {protocol.degree} neighbours")
    federate(Ray(), protocol, WIDTHS[params], main)


@dataclass
class Counting:
    """Passes messages on; counts them, and the bytes of the protocol's own record."""

    grid: Grid
    messages: int = 0
    bytes: int = 0

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Pass on, and count."""
        sent = list(messages)
        replies = list(self.grid.send_and_receive(sent, timeout=timeout))
        self.messages += len(sent)
        records = (m.content.config_records[RECORD] for m in (*sent, *replies))
        self.bytes += sum(_size(value) for record in records for value in record.values())
        return replies

    def get_node_ids(self) -> list[int]:
        """Return those of the grid."""
        return list(self.grid.get_node_ids())


def _size(value: object) -> int:
    if isinstance(value, list):
        return sum(map(_size, value))
    return len(value) if isinstance(value, bytes | str) else 8


def traffic(clients: int) -> None:
    """Print how many messages a client gets in a round, and their bytes but for the words."""
    protocol = Protocol(clients)

    def main(running: Rounds) -> None:
        counting = running.grid = Counting(running.grid)  # type: ignore[assignment]
        running.one(both(protocol)[1])
        each = counting.messages / clients, counting.bytes / clients
        print(f"{clients:7}{protocol.degree:5}{each[0]:10.0f}{each[1]:10,.0f}", flush=True)

    federate(Serial(), protocol, 1, main)


def masks(params: Sequence[int]) -> None:
    """Print how fast a seed becomes a mask and is added."""
    for dtype in (np.uint32, np.uint64):
        for size in params:
            words = expand(os.urandom(32), size, dtype)
            repeats = max(3, 100_000_000 // words.nbytes)
            seeds = [os.urandom(32) for _ in range(repeats)]
            start = time.process_time()
            for seed in seeds:
                add_mask(words, seed, 1)
            spent = (time.process_time() - start) / repeats
            print(
                f"{size:10,} words of {words.itemsize} bytes: {1000 * spent:7.3f} ms, "
                f"{words.nbytes / spent / 1e9:.2f} GB/s",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 50])
    parser.add_argument(
        "--params", type=int, nargs="+", default=[85_002, 1_000_567], choices=WIDTHS
    )
    parser.add_argument("--neighbors", type=int, nargs="*", default=[20])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--only-rounds", action="store_true", help="no masks, no traffic")
    parser.add_argument("--many", type=int, help="only one round of so many clients")
    arguments = parser.parse_args()
    quiet()
    if arguments.many:
        many(arguments.many, arguments.params[0])
        return
    if not arguments.only_rounds:
        print("Masks, processor time of one core")
        masks(list(WIDTHS))
        print("Traffic: clients, neighbours, messages a client, bytes a client both ways")
        for clients in (50, 200, 1000):
            traffic(clients)
    print("Rounds; the last three: ms beyond a plain round per client: wall, processor, driver's")
    print("clients    params    k    plain   masked  ratio      wall processor    driver")
    for clients in arguments.clients:
        for k in (None, *(k for k in arguments.neighbors if k < clients)):
            for params in arguments.params:
                side_by_side(Protocol(clients, neighbors=k), params, WARM + arguments.rounds)


if __name__ == "__main__":
    main()
