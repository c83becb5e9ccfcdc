"""Rounds of a strategy with server-side noise, with clients whose updates are given."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from fedmia.arrays import to_params, to_record
from fedmia.grid.serial import Serial


def fed_avg(kind=FedAvg, **settings):
    return kind(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1, **settings)


def model_of(size):
    """A model of two arrays, of ``size`` parameters in all."""
    first = size // 2
    return {
        "weight": np.zeros((first, 1), np.float32),
        "bias": np.zeros(size - first, np.float32),
    }


def flat(params):
    return np.concatenate([np.ravel(value) for value in params.values()]).astype(np.float64)


def moved(model, change):
    """The model after an update, shape (size,)."""
    after, start = {}, 0
    for name, value in model.items():
        piece = change[start : start + value.size].reshape(value.shape)
        after[name], start = (value + piece).astype(value.dtype), start + value.size
    return after


@dataclass(frozen=True)
class Connected:
    """All of a grid that a strategy looks at before it asks: who is there."""

    nodes: list[int]

    def get_node_ids(self):
        return self.nodes


@dataclass(frozen=True)
class Round:
    """``asked``: ranks of the node ids; ``change``: of the model, ``None`` if it stayed."""

    asked: list[int]
    change: np.ndarray | None
    metrics: MetricRecord | None


def play(
    strategy,
    updates: Callable[[int, int], np.ndarray],
    clients: int,
    size: int,
    rounds: int = 1,
    lost: Callable[[int, int], bool] = lambda client, number: False,
    metrics: Callable[[int], dict] = lambda client: {"num-examples": 1, "train-loss": 3.0},
    away: Callable[[int, int], bool] = lambda client, number: False,
):
    """Play rounds in which ``updates(client, round)`` is what a client adds to the model.

    One that is ``lost`` is asked and does not answer; one that is ``away`` is not connected.
    """

    def answer(message, client, number, model):
        after = moved(model, updates(client, number))
        content = {"arrays": to_record(after), "metrics": MetricRecord(metrics(client))}
        return Message(RecordDict(content), reply_to=message)

    def main(grid):
        nodes = sorted(grid.get_node_ids())
        model, found = model_of(size), []
        for number in range(1, rounds + 1):
            there = Connected([n for k, n in enumerate(nodes) if not away(k, number)])
            sent = list(strategy.configure_train(number, to_record(model), ConfigRecord(), there))
            asked = [nodes.index(m.metadata.dst_node_id) for m in sent]
            here = [(m, k) for m, k in zip(sent, asked, strict=True) if not lost(k, number)]
            replies = [answer(m, client, number, model) for m, client in here]
            arrays, told = strategy.aggregate_train(number, replies)
            if arrays is None:
                found.append(Round(asked, None, told))
                continue
            after = to_params(arrays)
            found.append(Round(asked, flat(after) - flat(model), told))
            model = after
        return found

    return Serial().run(ClientApp, clients, 0, main)


def clipped(update, clip):
    norm = np.linalg.norm(update)
    return update * min(1.0, clip / norm) if norm else update
