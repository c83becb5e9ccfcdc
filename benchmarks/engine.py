"""Seconds per steady round of each pool beside a plain single-core torch loop, in one run.

Reference workload: clients with 20 records each, an MLP of 85,002 parameters, five local steps
of SGD with momentum; every update is decoded and handed to the observer.

    python benchmarks/engine.py [--clients 50 200] [--rounds 10] [--pools ray flower tutorial]

``flower`` is the stock runtime with our clients, which hand their arrays over without serialising
them; ``tutorial`` the same runtime with a ClientApp as Flower's tutorials write it.
"""

import argparse
import copy
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clients.honest import Honest
from fedmia.arrays import to_record
from fedmia.federation import Federation
from fedmia.grid.base import ClientAppFactory, Pool
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
POOLS = ("ray", "serial", "flower", "tutorial")


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


def plain_fit(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Train as a script does with ``torch.optim.SGD``."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(STEPS):
        order = torch.randperm(SAMPLES)
        optimizer.zero_grad()
        cross_entropy(model(x[order]), y[order]).backward()
        optimizer.step()


@dataclass(frozen=True)
class Tutorial:
    """Flower's simulation of a ClientApp that knows nothing of this package."""

    model: nn.Module
    shards: Sequence[Examples]

    def run(
        self,
        client_app: ClientAppFactory,
        num_clients: int,
        seed: int,
        main: Callable[[Grid], None],
    ) -> None:
        """Run ``main`` as the ServerApp; the app's clients take the place of ``client_app``."""
        app, server_app = ClientApp(), ServerApp()
        data = [(torch.from_numpy(s.x), torch.from_numpy(s.y)) for s in self.shards]
        model = self.model

        @app.train()
        def _train(message: Message, context: Context) -> Message:
            torch.set_num_threads(1)
            model.load_state_dict(message.content["arrays"].to_torch_state_dict())
            plain_fit(model, *data[int(context.node_config["partition-id"])])
            metrics = MetricRecord({"num-examples": SAMPLES})
            arrays = ArrayRecord(model.state_dict())
            return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

        @app.query("partition")
        def _partition(message: Message, context: Context) -> Message:
            record = ConfigRecord({"partition-id": context.node_config["partition-id"]})
            return Message(RecordDict({"config": record}), reply_to=message)

        @server_app.main()
        def _main(grid: Grid, context: Context) -> None:
            main(grid)

        run_simulation(
            server_app=server_app,
            client_app=app,
            num_supernodes=num_clients,
            backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0}},
        )


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
            plain_fit(model, x, y)
            for name, value in model.state_dict().items():
                mean[name] += value / len(data)
        weights = mean
        yield time.perf_counter() - start


def pool_of(name: str, model: nn.Module, shards: Sequence[Examples]) -> Pool | Tutorial:
    pools: dict[str, Callable[[], Pool]] = {"ray": Ray, "serial": Serial, "flower": Flower}
    return Tutorial(model, shards) if name == "tutorial" else pools[name]()


def side_by_side(
    pool: Pool | Tutorial, model: nn.Module, shards: Sequence[Examples], rounds: int
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
    print("clients      pool  s/round     plain  pool/plain")
    for num_clients in arguments.clients:
        model, shards = workload(num_clients)
        for name in arguments.pools:
            stock = name in ("flower", "tutorial")
            rounds = WARM + arguments.rounds // (3 if stock else 1)
            pool = pool_of(name, model, shards)
            seconds, beside = map(steady, side_by_side(pool, model, shards, rounds))
            print(
                f"{num_clients:7d}  {name:>8}{seconds:9.4f}{beside:10.4f}{seconds / beside:12.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
