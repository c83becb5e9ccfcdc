"""Clients with known updates under secure aggregation; some misbehave at a chosen stage."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from clients.defenses.secagg_plus import SecAggPlus as Mod
from fedmia.arrays import to_params, to_record
from fedmia.grid.serial import Serial
from fedmia.secagg.identities import Identities
from fedmia.secagg.protocol import Protocol
from fedmia.secagg.wire import RECORD
from strategies.secagg_plus import SecAggPlus

STAGES = ("secagg_keys", "secagg_shares", "train", "secagg_consistency", "secagg_unmask")
START = {
    "w": np.array([[0.25, -0.5, 0.125], [1.0, 2.0, -3.0]], np.float32),
    "seen": np.array(7, np.int64),
    "b": np.array([0.5, -0.25], np.float64),
}
Meddling = Callable[[Message, Callable[[], Message]], Message]
"""Gets a message and what answers it; returns what goes back."""


def update(client, params):
    """What a client adds to the model: part of the way to a point of its own."""
    aim = np.cos(1.0 + client)
    return {k: 0.1 * (aim - v) for k, v in params.items() if v.dtype.kind == "f"}


def weight(client):
    return 10 * (client + 1)


def fail(message, proceed):
    raise ConnectionError("lost on purpose")


def after(message, proceed):
    """Do the work, but lose the answer."""
    proceed()
    raise ConnectionError("lost on purpose")


def says(**fields):
    def meddle(message, proceed):
        reply = proceed()
        reply.content[RECORD] = ConfigRecord(dict(reply.content[RECORD]) | fields)
        return reply

    return meddle


def hears(change):
    """Change the message before the client sees it, as a server that lies would."""

    def meddle(message, proceed):
        change(message.content)
        return proceed()

    return meddle


@dataclass(frozen=True)
class Federation:
    """Builds the clients' app; ``seen`` fills with (client, stage) of every message delivered."""

    protocol: Protocol | None
    meddling: dict[tuple[int, str], Meddling] = field(default_factory=dict)
    seen: list[tuple[int, str]] = field(default_factory=list)

    def __call__(self):
        mods = [self._meddle]
        if self.protocol is not None:
            mods.append(Mod(self.protocol, Identities(clients=20, seed=1)))
        app = ClientApp(mods=mods)

        @app.train()
        def train(message: Message, context: Context) -> Message:
            client = context.node_config["partition-id"]
            params = to_params(message.content["arrays"])
            moved = {k: v + update(client, params).get(k, 1) for k, v in params.items()}
            told = {"num-examples": weight(client), "loss": 0.5 + client}
            content = {"arrays": to_record(moved), "metrics": MetricRecord(told)}
            return Message(RecordDict(content), reply_to=message)

        for action, handler in getattr(mods[-1], "handlers", {}).items():
            app.query(action)(handler)
        return app

    def _meddle(self, message, context, call_next):
        client, stage = context.node_config["partition-id"], message.metadata.message_type
        stage = stage.removeprefix("query.")
        self.seen.append((client, stage))
        meddle = self.meddling.get((client, stage))
        if meddle is None:
            return call_next(message, context)
        return meddle(message, lambda: call_next(message, context))

    def stages(self):
        return {stage for _, stage in self.seen}


@dataclass(frozen=True)
class Ended:
    params: dict[str, np.ndarray]
    metrics: dict[int, dict[str, float]]
    abandoned: list[tuple[int, str]]
    federation: Federation


def fedavg(n, kind=FedAvg, **settings):
    every = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_evaluate_nodes": 0}
    return kind(min_available_nodes=n, **every, **settings)


def run(protocol, meddling=None, n=5, rounds=1, inner=None):
    """Train and return what came of it; without a protocol, in the open."""
    federation = Federation(protocol, meddling or {})
    strategy = inner or fedavg(n)
    if protocol is not None:
        strategy = SecAggPlus(strategy, protocol)
    models = []
    random.seed(5)  # Flower samples the order of the clients
    result = Serial().run(
        federation,
        n,
        3,
        lambda grid: strategy.start(
            grid,
            to_record(START),
            num_rounds=rounds,
            evaluate_fn=lambda _, arrays: models.append(to_params(arrays)),
        ),
    )
    assert len(models) == rounds + 1
    metrics = {r: dict(m) for r, m in result.train_metrics_clientapp.items()}
    abandoned = getattr(strategy, "abandoned", [])
    return Ended(models[-1], metrics, abandoned, federation)


def expected(protocol, clients):
    """Return the model that exactly these clients' words stand for."""
    codec = protocol.codec
    moved = {
        k: {
            name: (START[name] + d).astype(START[name].dtype)
            for name, d in update(k, START).items()
        }
        for k in clients
    }
    deltas = {k: {name: v - START[name] for name, v in m.items()} for k, m in moved.items()}
    words = [codec.encode(deltas[k], {"loss": 0.5 + k}, weight(k)) for k in clients]
    mean = codec.decode(sum(words), START, ["loss"], len(words))
    params = {
        k: (v + mean.delta[k]).astype(v.dtype) if k in mean.delta else v for k, v in START.items()
    }
    return params, {"num-examples": mean.weight, **mean.metrics}


def same(found, wanted):
    return list(found) == list(wanted) and all(np.array_equal(found[k], wanted[k]) for k in wanted)
