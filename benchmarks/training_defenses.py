"""What defences that add to the steps of local training cost a client's round, on one thread.

A round of each follows a plain one in every repetition, from a model that has been trained for some
rounds; times are the thread's own, ratios are medians over repetitions.

    python benchmarks/training_defenses.py [--models mlp cnn] [--records 20] [--repeats 40]

Every option of ``conf/client/defenses`` is there that says it adds to steps.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from flwr.app import Context, RecordDict

from fedmia import config
from fedmia.errors import ConfigError
from fedmia.models.cnn import CNN
from fedmia.models.mlp import MLP
from fedmia.regularized import RegularizedSGD
from fedmia.site import Trainer, TrainingDefense
from fedmia.training import FlatModel, LocalSGD

MODELS = {"mlp": MLP(), "cnn": CNN()}
SHAPE, CLASSES = (1, 8, 8), 10


def recipes() -> dict[str, Trainer]:
    """Return what the defences make of the default recipe, by name."""
    found: dict[str, Trainer] = {"plain": LocalSGD(), "no ingredient": RegularizedSGD()}
    for name in config.options("client/defenses"):
        try:
            settings = config.compose([f"client/defenses=[{name}]"])
            mod = config.build(settings, f"client.defenses.{name}")
        except ConfigError:
            continue  # one that belongs to a strategy
        if getattr(mod, "regularizes", False) and isinstance(mod, TrainingDefense):
            context = Context(1, 1, {"partition-id": 0}, RecordDict(), {})
            found[name] = mod.trains(LocalSGD(), context)
    return found


def ways(name: str, records: int) -> dict[str, Callable[[], object]]:
    """Return what trains one client's model for a round, by names."""
    torch.manual_seed(0)
    model = FlatModel(MODELS[name](SHAPE, CLASSES))
    x, y = torch.rand(records, *SHAPE), torch.randint(CLASSES, (records,))
    for server_round in range(5):
        LocalSGD().fit(model, x, y, np.random.default_rng(server_round))
    before = model.params()

    def way(trainer: Trainer) -> Callable[[], object]:
        def train() -> None:
            model.load(before)
            trainer.fit(model, x, y, np.random.default_rng(0))

        return train

    return {label: way(trainer) for label, trainer in recipes().items()}


def measure(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, np.ndarray]:
    """Return the ratio of each repetition to the plain round before it, and that round's seconds.

    The first repetition is left out.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            plain, spent = (_seconds(each) for each in (ways["plain"], way))
            found[name].append(plain if name == "plain" else spent / plain)
    return {name: np.array(values[1:]) for name, values in found.items()}


def _seconds(way: Callable[[], object]) -> float:
    start = time.thread_time()
    way()
    return time.thread_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--records", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.models:
        found = measure(ways(name, arguments.records), arguments.repeats)
        plain = 1000 * np.median(found.pop("plain"))
        print(f"{name}: a plain round takes {plain:.1f} ms; the others, as many times that")
        for label, ratios in found.items():
            print(f"{label:28}{np.median(ratios):6.2f}x", flush=True)


if __name__ == "__main__":
    main()
