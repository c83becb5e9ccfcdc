"""Clients with known updates, and rounds of a strategy that is to add them up."""

from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from fedmia.arrays import decode, encode, to_params, to_record
from fedmia.grid.serial import Serial
from fedmia.records import MASKED, WORDS
from fedmia.secagg.wire import RECORD

MODEL = {
    "weight": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    "steps": np.array([7], dtype=np.int64),
}
STEP = 1 / 32767


def update(client):
    return np.random.default_rng(client).integers(-32767, 32768, (2, 3)) * STEP


def mean(clients):
    weights = [client + 1 for client in clients]
    total = sum(w * update(c) for w, c in zip(weights, clients, strict=True))
    return total / sum(weights)


@dataclass
class Run:
    """Rounds with clients 0, 1, … of weights 1, 2, …; ``spoil`` may change the replies."""

    strategy: object
    mod: object
    clients: int = 4
    away: tuple = ()
    spoil: object = None

    def app(self):
        app = ClientApp(mods=[self.mod])

        @app.train()
        def _train(message, context):
            client = int(context.node_config["partition-id"])
            if client in self.away:
                raise RuntimeError("away")
            model = to_params(message.content["arrays"])
            after = {
                "weight": (model["weight"] + update(client)).astype(np.float32),
                "steps": model["steps"] + 1,
            }
            metrics = MetricRecord({"num-examples": client + 1, "train-loss": float(client)})
            return Message(
                RecordDict({"arrays": to_record(after), "metrics": metrics}), reply_to=message
            )

        for action, handler in getattr(self.mod, "handlers", {}).items():
            app.query(action)(handler)
        return app

    def rounds(self, *numbers, messages=None):
        """Return (arrays, metrics) of each round."""

        def main(grid):
            found = []
            for number in numbers:
                config = ConfigRecord({"lr": 0.1})
                asked = list(self.strategy.configure_train(number, to_record(MODEL), config, grid))
                if messages is not None:
                    messages.extend(asked)
                replies = list(grid.send_and_receive(asked))
                replies.sort(key=lambda reply: asked_of(asked, reply))
                if self.spoil:
                    self.spoil([r for r in replies if not r.has_error()])
                found.append(self.strategy.aggregate_train(number, replies))
            return found

        return Serial().run(self.app, self.clients, 0, main)


def asked_of(asked, reply):
    return [m.metadata.dst_node_id for m in asked].index(reply.metadata.src_node_id)


def fed_avg(**settings):
    return FedAvg(fraction_evaluate=0.0, **settings)


def words(reply):
    return decode(reply.content[MASKED][WORDS])


def resend(reply, changed):
    reply.content[MASKED] = ArrayRecord({WORDS: encode(changed)})


def restate(reply, **fields):
    reply.content[RECORD] = ConfigRecord({**reply.content[RECORD], **fields})


def weight(found):
    arrays, _ = found
    return to_params(arrays)["weight"] - MODEL["weight"]
