"""What defences that change updates add to a client's round, on one thread.

Each stands around a client that has its answer ready, and is timed beside a round of local training
with the default recipe; times are the thread's own, ratios are medians over repetitions.

    python benchmarks/mods.py [--model mlp] [--records 20] [--repeats 40]

A defence that changes how the client trains is timed with the training; the plain round is taken
off. Every option of ``conf/client/defenses`` is there that says it changes updates.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from fedmia import config
from fedmia.arrays import to_record
from fedmia.errors import ConfigError
from fedmia.models.cnn import CNN
from fedmia.models.mlp import MLP
from fedmia.records import PAYLOAD
from fedmia.training import FlatModel, LocalSGD

MODELS = {"mlp": (MLP(), (64,)), "cnn": (CNN(), (1, 8, 8))}
CLASSES = 10


def defences() -> dict[str, object]:
    """Return the defences that change updates, by name, as they are configured."""
    found = {}
    for name in config.options("client/defenses"):
        try:
            settings = config.compose([f"client/defenses=[{name}]"])
            mod = config.build(settings, f"client.defenses.{name}")
        except ConfigError:
            continue  # one that belongs to a strategy
        if getattr(mod, "changes_updates", False) or getattr(mod, "after_training", False):
            found[name] = mod
    return found


class Round:
    """One client's round: the message, the answer that is ready, and the training behind it."""

    def __init__(self, model: str, records: int) -> None:
        builder, shape = MODELS[model]
        self.model = FlatModel(builder(shape, CLASSES))
        self.x, self.y = torch.rand(records, *shape), torch.randint(CLASSES, (records,))
        self.before = self.model.params()
        self.train(LocalSGD())
        self.params = self.model.params()
        told = ConfigRecord({"server-round": 1})
        content = RecordDict({"arrays": to_record(self.before), "config": told})
        self.message = Message(content, 1, "train")
        self.metrics = {"num-examples": records, "train-loss": 0.5}

    def train(self, recipe: LocalSGD) -> None:
        """Train from the model that was sent."""
        self.model.load(self.before)
        recipe.fit(self.model, self.x, self.y, np.random.default_rng(0))

    def answer(self, message: Message, context: Context) -> Message:
        """Return the answer of a client that has trained."""
        told = MetricRecord(dict(self.metrics))
        content = RecordDict({"arrays": to_record(self.params), "metrics": told})
        return Message(content, reply_to=message)

    def through(self, mod: object) -> tuple[Callable[[], None], int]:
        """Return what has a mod answer once more, and the bytes that it states."""
        context = Context(1, 1, {"partition-id": 0}, RecordDict(), {})

        def call() -> int:
            reply = mod(self.message, context, self.answer)
            return int(reply.content["metrics"][PAYLOAD])

        return call, call()


def measure(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, np.ndarray]:
    """Return the seconds of every repetition, the first one left out."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            start = time.thread_time()
            way()
            spent[name].append(time.thread_time() - start)
    return {name: np.array(seconds[1:]) for name, seconds in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mlp", choices=MODELS)
    parser.add_argument("--records", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    here = Round(arguments.model, arguments.records)
    dense = sum(value.nbytes for value in here.params.values())
    context = Context(1, 1, {"partition-id": 0}, RecordDict(), {})
    ways: dict[str, Callable[[], object]] = {
        "plain": lambda: here.train(LocalSGD()),
        "answer": lambda: here.answer(here.message, context),
    }
    sizes, without = {}, {}
    for name, mod in defences().items():
        if callable(mod):
            ways[name], sizes[name] = here.through(mod)
            without[name] = "answer"
        else:
            ways[name] = lambda mod=mod: here.train(mod.trains(LocalSGD(), context))
            sizes[name], without[name] = dense, "plain"
    spent = measure(ways, arguments.repeats)
    plain = spent["plain"]
    print(f"{arguments.model}: a round of training takes {1000 * np.median(plain):.1f} ms")
    print(f"{'defence':24}{'ms':>8}{'of a round':>12}{'bytes':>10}{'of the model':>14}")
    for name, base in without.items():
        added = spent[name] - spent[base]
        line = f"{name:24}{1000 * np.median(added):8.2f}{np.median(added / plain):12.1%}"
        print(f"{line}{sizes[name]:10,}{sizes[name] / dense:14.1%}", flush=True)


if __name__ == "__main__":
    main()
