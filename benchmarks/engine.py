"""Seconds per steady round of each pool beside a plain single-core torch loop, in one run.

Reference workload: clients with 20 records each, an MLP of 85,002 parameters, five local steps
of SGD with momentum; every update is decoded and handed to the observer.

    python benchmarks/engine.py [--clients 50 200] [--rounds 10] [--pools ray serial flower]
"""

import argparse
import copy
import os
import time
from collections.abc import Callable, Iterator, Sequence

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import torch
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from torch import nn
from torch.nn.functional import cross_entropy

from clients.honest import Honest
from fedmia.arrays import to_record
from fedmia.federation import Federation
from fedmia.grid.base import Pool
from fedmia.grid.flower import Flower
from fedmia.grid.ray import Ray
from fedmia.grid.serial import Serial
from fedmia.models.mlp import MLP
from fedmia.observe import ObservedGrid
from fedmia.recording import ask_nodes
from fedmia.records import Examples, Observation
from fedmia.runlog import quiet
from fedmia.training import FlatModel, LocalSGD

SAMPLES, STEPS, WARM = 20, 5, 3
POOLS: dict[str, Callable[[], Pool]] = {"ray": Ray, "serial": Serial, "flower": Flower}


def workload(num_clients: int) -> tuple[nn.Module, list[Examples]]:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = MLP()((64,), 10)
    return model, [
        Examples(
            rng.random((SAMPLES, 64), dtype=np.float32),
            rng.integers(10, size=SAMPLES),
        )
        for _ in range(num_clients)
    ]


def plain_loop(model: nn.Module, shards: Sequence[Examples]) -> Iterator[float]:
    """Yield the seconds of each round of what a script would do with ``torch.optim.SGD``."""
    torch.set_num_threads(1)
    model = copy.deepcopy(model)
    data = [(torch.from_numpy(s.x), torch.from_numpy(s.y)) for s in shards]
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    while True:
        start = time.perf_counter()
        mean = {k: torch.zeros_like(v) for k, v in weights.items()}
        for x, y in data:
            model.load_state_dict(weights)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
            for _ in range(STEPS):
                order = torch.randperm(SAMPLES)
                optimizer.zero_grad()
                cross_entropy(model(x[order]), y[order]).backward()
                optimizer.step()
            for name, value in model.state_dict().items():
                mean[name] += value / len(data)
        weights = mean
        yield time.perf_counter() - start


def side_by_side(
    pool: Pool, model: nn.Module, shards: Sequence[Examples], rounds: int
) -> tuple[list[float], list[float]]:
    """Return seconds of rounds on a pool and of the plain loop, taken in turn."""
    trainer = LocalSGD(local_epochs=STEPS, batch_size=SAMPLES)
    clients = Federation(Honest(), (), model, trainer, shards, seed=0)
    plain = plain_loop(model, shards)
    seconds: list[float] = []
    beside: list[float] = []

    def main(grid: Grid) -> None:
        ask_nodes(grid, len(shards))
        seen: list[int] = []
        clock = time.perf_counter()

        def on_round(observation: Observation) -> None:
            seen.append(len(observation.updates))

        def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            nonlocal clock
            if server_round:
                seconds.append(time.perf_counter() - clock)
                beside.append(next(plain))
            clock = time.perf_counter()
            return None

        strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=len(shards))
        strategy.start(
            grid=ObservedGrid(grid, on_round),
            initial_arrays=to_record(FlatModel(model).params()),
            num_rounds=rounds,
            evaluate_fn=evaluate,
        )
        assert seen == [len(shards)] * rounds, "an update is missing"

    pool.run(clients, len(shards), 0, main)
    return seconds, beside


def steady(seconds: Sequence[float]) -> float:
    """Median of the rounds after the first few."""
    return float(np.median(seconds[WARM:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--pools", nargs="+", default=["ray", "serial", "flower"], choices=POOLS)
    arguments = parser.parse_args()
    quiet()
    print("clients     pool    s/round     plain  pool/plain")
    for num_clients in arguments.clients:
        model, shards = workload(num_clients)
        for name in arguments.pools:
            rounds = WARM + arguments.rounds // (3 if name == "flower" else 1)
            pool, plain = map(steady, side_by_side(POOLS[name](), model, shards, rounds))
            print(
                f"{num_clients:7d}  {name:>7}{pool:10.4f}{plain:10.4f}{pool / plain:12.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
