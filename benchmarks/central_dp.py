"""What differential privacy at the server adds to a round: aggregation, and whole rounds.

Reference workload: 50 clients, an MLP of 85,002 parameters; for whole rounds 20 records each and
five local steps, as in ``engine.py``. The strategies take turns, so that a slow moment of the
machine is one of all of them. An aggregation is measured in processor time, a round on the clock.

    python benchmarks/central_dp.py [--clients 50 200] [--repeats 30] [--rounds 12] [--pool ray]
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
from engine import STEPS, WARM, steady, workload
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

from clients.honest import Honest
from fedmia.arrays import to_record
from fedmia.federation import Federation
from fedmia.grid.base import Pool
from fedmia.grid.ray import Ray
from fedmia.grid.serial import Serial
from fedmia.observe import ObservedGrid
from fedmia.recording import ask_nodes
from fedmia.records import Params
from fedmia.runlog import quiet
from fedmia.training import FlatModel, LocalSGD
from strategies.dp_central import DpCentral
from strategies.dp_ftrl import DpFtrl

SAMPLES = 20


def fedavg(clients: int) -> FedAvg:
    return FedAvg(fraction_evaluate=0.0, min_available_nodes=clients)


def strategies(clients: int, rounds: int) -> dict[str, Callable[[], Strategy]]:
    """Return what is compared; noise comes from the seed unless the name says otherwise."""
    common = {"clip": 1.0, "noise_multiplier": 1.0, "rounds": rounds, "clients": clients}

    def central(**settings: object) -> Callable[[], Strategy]:
        return lambda: DpCentral(fedavg(clients), **common, **settings)

    return {
        "fedavg": lambda: fedavg(clients),
        "dp_central": central(),
        "dp_central, per layer": central(clipping="per_layer"),
        "dp_central, secure noise": central(secure_noise=True),
        "dp_ftrl": lambda: DpFtrl(fedavg(clients), **common),
    }


def aggregations(clients: int, repeats: int) -> dict[str, list[float]]:
    """Return the processor seconds of each strategy over the same replies, taken in turn."""
    model, shards = workload(clients)
    start = FlatModel(model).params()
    rng = np.random.default_rng(0)
    answers = [
        {k: v + 0.01 * rng.standard_normal(v.shape, np.float32) for k, v in start.items()}
        for _ in range(clients)
    ]
    made = {name: make() for name, make in strategies(clients, repeats + WARM).items()}
    seconds: dict[str, list[float]] = {name: [] for name in made}

    def main(grid: Grid) -> None:
        sent = to_record(start)
        for server_round in range(1, repeats + WARM + 1):
            for name, strategy in made.items():
                asked = list(strategy.configure_train(server_round, sent, ConfigRecord(), grid))
                replies = [_reply(m, answer) for m, answer in zip(asked, answers, strict=True)]
                clock = time.process_time()
                strategy.aggregate_train(server_round, replies)
                seconds[name].append(time.process_time() - clock)

    Serial().run(Federation(Honest(), (), model, LocalSGD(), shards, seed=0), clients, 0, main)
    return seconds


def _reply(message: Message, answer: Params) -> Message:
    metrics = MetricRecord({"num-examples": SAMPLES, "train-loss": 1.0})
    content = RecordDict({"arrays": to_record(answer), "metrics": metrics})
    return Message(content, reply_to=message)


def rounds_of(pool: Pool, clients: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of whole rounds under each strategy, one round of each in turn."""
    model, shards = workload(clients)
    trainer = LocalSGD(local_epochs=STEPS, batch_size=SAMPLES)
    federation = Federation(Honest(), (), model, trainer, shards, seed=0)
    made = {name: make() for name, make in strategies(clients, rounds).items()}
    seconds: dict[str, list[float]] = {name: [] for name in made}

    def main(grid: Grid) -> None:
        ask_nodes(grid, clients)
        first = to_record(FlatModel(model).params())
        models = dict.fromkeys(made, first)
        observed = ObservedGrid(grid, lambda observation: None)
        for server_round in range(1, rounds + 1):
            for name, strategy in made.items():
                models[name] = _round(strategy, server_round, models[name], observed, seconds[name])

    pool.run(federation, clients, 0, main)
    return seconds


def _round(
    strategy: Strategy, number: int, model: ArrayRecord, grid: Grid, seconds: list[float]
) -> ArrayRecord:
    clock = time.perf_counter()
    asked = strategy.configure_train(number, model, ConfigRecord(), grid)
    arrays, _ = strategy.aggregate_train(number, grid.send_and_receive(asked))
    seconds.append(time.perf_counter() - clock)
    assert arrays is not None
    return arrays


def show(what: str, clients: int, seconds: dict[str, Sequence[float]]) -> None:
    base = steady(seconds["fedavg"])
    for name, taken in seconds.items():
        mean = steady(taken)
        print(
            f"{clients:7d}  {what:<11} {name:<26}{1e3 * mean:9.2f}{mean / base:12.2f}", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[50])
    parser.add_argument("--repeats", type=int, default=30, help="aggregations of each strategy")
    parser.add_argument("--rounds", type=int, default=12, help="whole rounds; 0: none")
    parser.add_argument("--pool", default="ray", choices=["ray", "serial"])
    arguments = parser.parse_args()
    quiet()
    print("clients  what        strategy                         ms  of fedavg")
    for clients in arguments.clients:
        show("aggregation", clients, aggregations(clients, arguments.repeats))
        if arguments.rounds:
            pool = Ray() if arguments.pool == "ray" else Serial()
            show("round", clients, rounds_of(pool, clients, WARM + arguments.rounds))


if __name__ == "__main__":
    main()
