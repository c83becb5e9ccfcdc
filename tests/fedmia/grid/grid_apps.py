"""Small client apps for the pools' tests; a module of its own so that actors can import it."""

import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp


def partition(context: Context) -> int:
    return int(context.node_config["partition-id"])


@dataclass(frozen=True)
class Adding:
    """Adds 1 + its own number to what it gets and counts its messages in ``context.state``.

    ``troubles`` names, by round, the number of a client and what happens to it: raise, hang, die
    once, die always.
    """

    troubles: Mapping[int, tuple[int, str]] = field(default_factory=dict)
    flag: str = ""

    def __call__(self) -> ClientApp:
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            me = partition(context)
            who, trouble = self.troubles.get(message.content["config"]["server-round"], (-1, ""))
            if me == who:
                self._cause(trouble)
            state = context.state.setdefault("count", ConfigRecord({"n": 0}))
            state["n"] += 1
            (values,) = message.content["arrays"].values()
            values = values.numpy() + 1 + me
            content = RecordDict(
                {
                    "arrays": ArrayRecord({"w": Array(values)}),
                    "metrics": MetricRecord({"num-examples": 1, "count": state["n"]}),
                }
            )
            message.content["arrays"]["w"] = Array(np.zeros(3))  # must not reach anybody else
            return Message(content, reply_to=message)

        return app

    def _cause(self, trouble: str) -> None:
        if trouble == "raise":
            raise ZeroDivisionError("on purpose")
        if trouble == "hang":
            threading.Event().wait()
        if trouble == "die always":
            os._exit(1)
        if trouble == "die once" and not Path(self.flag).exists():
            Path(self.flag).touch()
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Unbuildable:
    def __call__(self) -> ClientApp:
        raise LookupError("no data on this machine")
