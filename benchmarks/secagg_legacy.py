"""Secure aggregation beside Flower's own SecAgg+, which its current API cannot use.

``flwr.server.workflow.SecAggPlusWorkflow`` runs over the same Ray actors, on the same model and
data, with as many neighbours; the two take turns with whole federations. Median round of each.

    python benchmarks/secagg_legacy.py [--clients 50] [--neighbors 12] [--rounds 3]
"""

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import Context, RecordDict
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import ndarrays_to_parameters
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import Grid
from secagg import SAMPLES, STEPS, WIDTHS, Rounds, both, federate, shards_of

from fedmia.grid.ray import Ray
from fedmia.models.mlp import MLP
from fedmia.records import Examples
from fedmia.runlog import quiet
from fedmia.secagg.protocol import Protocol
from fedmia.training import FlatModel, LocalSGD


@dataclass(frozen=True)
class LegacyApp:
    """Builds the ClientApp that the legacy mod can wrap."""

    model: torch.nn.Module
    shards: list[Examples]

    def __call__(self) -> ClientApp:
        """Return an app of clients as the legacy interface has them."""
        model, trainer = FlatModel(self.model), LocalSGD(local_epochs=STEPS, batch_size=SAMPLES)
        shards = self.shards

        class Legacy(NumPyClient):
            def __init__(self, number: int) -> None:
                self.number = number

            def fit(self, parameters: Any, config: Any) -> tuple[Any, int, dict[str, Any]]:
                model.load(dict(zip(model.names, parameters, strict=True)))
                x, y = (torch.from_numpy(a) for a in (shards[self.number].x, shards[self.number].y))
                trainer.fit(model, x, y, np.random.default_rng(0))
                return list(model.params().values()), SAMPLES, {}

        def client_of(context: Context) -> Any:
            return Legacy(int(context.node_config["partition-id"])).to_client()

        return ClientApp(client_fn=client_of, mods=[secaggplus_mod])


def legacy(protocol: Protocol, width: int, rounds: int) -> list[float]:
    """Return the seconds of each round of Flower's workflow."""
    model = MLP([width, width])((64,), 10)
    seconds: list[float] = []
    finished: list[int] = []
    workflow = SecAggPlusWorkflow(protocol.degree + 1, protocol.shares_needed)

    def timed(grid: Grid, context: Context) -> None:
        start = time.perf_counter()
        workflow(grid, context)
        seconds.append(time.perf_counter() - start)

    class Counted(FedAvg):
        def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
            finished.append(server_round)
            return super().aggregate_fit(server_round, results, failures)

    def main(grid: Grid) -> None:
        initial = ndarrays_to_parameters(list(FlatModel(model).params().values()))
        strategy = Counted(
            fraction_evaluate=0.0,
            min_fit_clients=protocol.cohort,
            min_available_clients=protocol.cohort,
            initial_parameters=initial,
        )
        empty = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
        context = LegacyContext(empty, config=ServerConfig(num_rounds=rounds), strategy=strategy)
        DefaultWorkflow(fit_workflow=timed)(grid, context)
        assert len(finished) == rounds, "the legacy protocol halted"

    Ray().run(LegacyApp(model, shards_of(protocol.cohort)), protocol.cohort, 0, main)
    return seconds


def ours(protocol: Protocol, width: int, rounds: int) -> list[float]:
    """Return the seconds of each masked round."""
    seconds: list[float] = []

    def main(running: Rounds) -> None:
        _, strategy = both(protocol)
        for _ in range(rounds):
            start = time.perf_counter()
            running.one(strategy)
            seconds.append(time.perf_counter() - start)

    federate(Ray(), protocol, width, main)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--neighbors", type=int, default=12)
    parser.add_argument("--params", type=int, default=85_002, choices=WIDTHS)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    quiet()
    protocol = Protocol(arguments.clients, neighbors=arguments.neighbors)
    width = WIDTHS[arguments.params]
    for turn in range(2):
        spent = [np.median(f(protocol, width, arguments.rounds)) for f in (ours, legacy)]
        print(
            f"turn {turn}, {arguments.clients} clients, {arguments.neighbors} neighbours: "
            f"{spent[0]:.2f} s, legacy {spent[1]:.2f} s, ratio {spent[1] / spent[0]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
