"""Clients whose honest updates are given, asked under an attacker."""

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict

from clients.attackers.base import client_of
from clients.honest import DroppedOutError
from fedmia.arrays import to_params, to_record
from fedmia.records import difference

SENT = {
    "w": np.array([[1.0, -2.0], [0.5, 0.0]], np.float32),
    "seen": np.array(3, np.int64),
    "b": np.array([4.0, 4.0], np.float64),
}


def ask(server_round=1, kind="train", params=SENT):
    content = {"arrays": to_record(params), "config": ConfigRecord({"server-round": server_round})}
    return Message(RecordDict(content), 7, kind)


def context(client, run_id=1):
    return Context(run_id, 70 + client, {"partition-id": client}, RecordDict(), {})


class Honest:
    """Moves the model by the client's row of ``updates``, (n, 6); counts how often it trains."""

    def __init__(self, updates, away=(), params=SENT):
        self.updates, self.away, self.params = np.asarray(updates, float), away, params
        self.trained = []

    def __call__(self, message, context):
        client = client_of(context)
        self.trained.append(client)
        if client in self.away:
            raise DroppedOutError("away")
        row = self.updates[client]
        after = {
            "w": (self.params["w"] + row[:4].reshape(2, 2)).astype(np.float32),
            "seen": self.params["seen"] + client,
            "b": self.params["b"] + row[4:],
        }
        told = MetricRecord({"num-examples": 20 + client, "train-loss": 0.25})
        content = {"arrays": to_record(after), "metrics": told}
        return Message(RecordDict(content), reply_to=message)


def sent_by(reply, params=SENT):
    """Return the update in an answer, (6,)."""
    found = difference(to_params(reply.content["arrays"]), params)
    return np.concatenate([found["w"].ravel(), found["b"].ravel()]).astype(np.float64)


def answer(mod, honest, client, server_round=1, run_id=1):
    return mod(ask(server_round, params=honest.params), context(client, run_id), honest)
