"""Robust rules against reading the updates: how much more than the data itself a rule costs.

Updates of so many clients are read out of their replies, and each rule combines them, in turn, so
that a slow moment of the machine is one of all of them. Processor time of one thread. Rules with a
memory are timed when it is full; FLTrust without the server's own training.

    python benchmarks/robust.py [--clients 100] [--coordinates 85002] [--repeats 7] [--before 12]
"""

import argparse
import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import resource
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fedmia.arrays import to_record
from fedmia.grid.serial import Serial
from fedmia.runlog import quiet
from strategies.angular_trimmed_mean import AngularTrimmedMean
from strategies.bulyan import Bulyan
from strategies.centered_clipping import CenteredClipping
from strategies.flame import Flame
from strategies.fldetector import FLDetector
from strategies.fltrust import FLTrust
from strategies.foolsgold import FoolsGold
from strategies.krum import Krum
from strategies.reputation import Reputation
from strategies.rfa import Rfa
from strategies.updates import Layout, Updates, read


def messages(grid: Grid, size: int) -> tuple[Layout, list[Message]]:
    """Return a model of one array and the replies of clients that moved it."""
    rng = np.random.default_rng(0)
    model = {"weight": rng.normal(size=size).astype(np.float32)}
    replies = []
    for node in grid.get_node_ids():
        after = model["weight"] + rng.normal(size=size, scale=1e-2).astype(np.float32)
        content = RecordDict({"arrays": to_record({"weight": after}), "m": MetricRecord()})
        replies.append(Message(content, reply_to=Message(RecordDict(), node, "train")))
    return Layout(model), replies


class GivenRoot:
    """A root set whose update is there already: what FLTrust itself costs, without training."""

    def __init__(self, own: NDArray[Any]) -> None:
        self.own = own

    def at(self, vector: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the vector as a model."""
        return {"weight": vector}

    def flat(self, params: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the model as a vector."""
        return params["weight"]

    def update(self, params: dict[str, NDArray[Any]], server_round: int) -> dict[str, NDArray[Any]]:
        """Return the update that was given."""
        return {"weight": self.own}


def trusting(inner: FedAvg, own: NDArray[Any]) -> FLTrust:
    """Return FLTrust with a root set."""
    rule = FLTrust(inner)
    rule.equip(GivenRoot(own))  # type: ignore[arg-type]
    return rule


def seconds(work: Callable[[Updates], object], given: Updates, server_round: int) -> float:
    """Return the time of one call on updates of its own, of a model that has moved on."""
    moved = given.model + np.random.default_rng(server_round).normal(size=len(given.model))
    fresh = replace(
        given.only(range(len(given))), server_round=server_round, model=moved.astype(np.float32)
    )
    begun = time.process_time()
    work(fresh)
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--coordinates", type=int, default=85_002)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--before", type=int, default=12, help="rounds that are not timed")
    asked = parser.parse_args()
    clients, size = asked.clients, asked.coordinates
    quiet()
    Serial().run(ClientApp, clients, 0, lambda grid: compare(asked, *messages(grid, size)))


def compare(asked: argparse.Namespace, layout: Layout, replies: list[Message]) -> None:
    """Print a table: milliseconds, and ratios to reading the updates from the replies."""
    clients, size = asked.clients, asked.coordinates
    few = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    tenth = clients // 10
    updates, _ = read(layout, 1, replies)
    rules = {
        "krum": (Krum(few, tenth), 3),
        "multi-krum": (Krum(few, tenth, None), 4),
        "bulyan": (Bulyan(few, tenth), 4),
        "rfa": (Rfa(few), 4),
        "centered clipping": (CenteredClipping(few), 8),
        "angular trimmed mean": (AngularTrimmedMean(few, tenth), 2),
        "foolsgold": (FoolsGold(few), 5),
        "fltrust": (trusting(few, updates.matrix[0].copy()), 3),
        "flame": (Flame(few), 3),
        "fldetector": (FLDetector(few), 7),
        "reputation": (Reputation(few), 10),
    }
    times: dict[str, list[float]] = {name: [] for name in ("read", "pass", *rules)}
    first = asked.before + 1
    for rule, _ in (rules[name] for name in ("foolsgold", "fldetector", "reputation")):
        for server_round in range(1, first):
            seconds(rule.combine, updates, server_round)
    for server_round in range(first, first + asked.repeats):
        begun = time.process_time()
        updates, _ = read(layout, 1, replies)
        times["read"].append(time.process_time() - begun)
        begun = time.process_time()
        float(updates.matrix.sum())
        times["pass"].append(time.process_time() - begun)
        for name, (rule, _) in rules.items():
            times[name].append(seconds(rule.combine, updates, server_round))
    base, one = float(np.median(times["read"])), float(np.median(times["pass"]))
    print(f"{clients} clients x {size} coordinates; reading them from replies {base * 1e3:.1f} ms,")
    print(f"one pass over the matrix (a sum) {one * 1e3:.1f} ms\n")
    print("| rule | ms | of reading | passes | of so many passes |\n|---|---|---|---|---|")
    for name, (_, passes) in rules.items():
        spent = float(np.median(times[name]))
        ratios = f"{spent / base:.2f} | {passes} | {spent / passes / one:.2f}"
        print(f"| {name} | {spent * 1e3:.1f} | {ratios} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"\npeak resident memory {peak:.0f} MB; the updates {updates.matrix.nbytes / 2**20:.0f} MB"
    )


if __name__ == "__main__":
    main()
