"""The clients' side of an experiment: everything they need, and the ClientApp made of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from clients.base import Client
from fedmia.records import Examples
from fedmia.site import Site, Trainer, TrainingDefense
from fedmia.training import FlatModel


@dataclass(frozen=True)
class Federation:
    """Everything the clients of one process need; calling it builds their common app.

    Parameters
    ----------
    client
        How a client answers.
    mods
        Defences around it, outermost first. What can be called is a Flower mod; one with a mapping
        ``handlers`` answers the ``query`` messages of those actions. A
        :class:`~fedmia.site.TrainingDefense` changes the recipe, the last of them first.
    model
        The architecture; its weights come with each message.
    trainer
        How a client trains.
    shards
        Each client's records, by client number.
    seed
        Of the experiment.
    device
        Where clients train.
    """

    client: Client
    mods: Sequence[Any]
    model: nn.Module
    trainer: Trainer
    shards: Sequence[Examples]
    seed: int
    device: str = "cpu"

    def __call__(self) -> ClientApp:
        """Return an app whose clients share one model object, set anew by every message."""
        model = FlatModel(self.model, self.device)
        app = ClientApp(mods=[mod for mod in self.mods if callable(mod)])
        defenses = [mod for mod in self.mods if isinstance(mod, TrainingDefense)]

        @cache
        def site(partition_id: int) -> Site:
            shard = self.shards[partition_id]
            return Site(
                partition_id,
                torch.tensor(shard.x).to(self.device),
                torch.tensor(shard.y).to(self.device),
                model,
                self.trainer,
                self.seed,
            )

        @app.train()
        def _train(message: Message, context: Context) -> Message:
            here = site(_partition(context))
            for defense in reversed(defenses):
                here = replace(here, trainer=defense.trains(here.trainer, context))
            return self.client.train(message, context, here)

        @app.evaluate()
        def _evaluate(message: Message, context: Context) -> Message:
            return self.client.evaluate(message, context, site(_partition(context)))

        @app.query("partition")
        def _partition_id(message: Message, context: Context) -> Message:
            record = ConfigRecord({"partition-id": _partition(context)})
            return Message(RecordDict({"config": record}), reply_to=message)

        for mod in self.mods:
            for action, handler in getattr(mod, "handlers", {}).items():
                app.query(action)(handler)
        return app


def _partition(context: Context) -> int:
    return int(context.node_config["partition-id"])
