"""Mods wrap the client, training defences wrap its recipe, and a part may be both."""

import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from clients.honest import Honest
from fedmia.arrays import to_record
from fedmia.federation import Federation
from fedmia.models.logistic import Logistic
from fedmia.records import Examples
from fedmia.site import TrainingDefense
from fedmia.training import FlatModel


@pytest.fixture(autouse=True)
def _identity():
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID


class Recipe:
    """Logs itself, and calls the one that it wraps."""

    def __init__(self, name, log, inner=None):
        self.name, self.log, self.inner = name, log, inner

    def fit(self, model, x, y, rng):
        self.log.append(self.name)
        return self.inner.fit(model, x, y, rng) if self.inner else 0.5


class Trains:
    """A defence of training alone."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def trains(self, trainer, context):
        self.log.append(f"{self.name} for {context.node_config['partition-id']}")
        return Recipe(self.name, self.log, trainer)


class Both(Trains):
    """A mod as well."""

    def __call__(self, message, context, call_next):
        self.log.append(f"{self.name} before")
        reply = call_next(message, context)
        self.log.append(f"{self.name} after")
        return reply


def federation(mods, log):
    shards = [Examples(torch.rand(4, 5).numpy(), torch.arange(4).numpy()) for _ in range(2)]
    model = Logistic()((5,), 4)
    return Federation(Honest(), mods, model, Recipe("base", log), shards, seed=0), model


def send(federation, model, kind, partition_id=0):
    content = RecordDict({"arrays": to_record(FlatModel(model).params())})
    content["config"] = ConfigRecord({"server-round": 1})
    context = Context(1, 7, {"partition-id": partition_id}, RecordDict(), {})
    return federation()(Message(content, 7, kind), context)


def test_the_first_training_defence_wraps_last_and_sees_the_clients_context():
    log = []
    parts, model = federation((Trains("first", log), Trains("second", log)), log)
    reply = send(parts, model, "train", partition_id=1)
    assert log == ["second for 1", "first for 1", "first", "second", "base"]
    assert reply.content["metrics"]["train-loss"] == 0.5


def test_a_part_may_be_a_mod_and_a_training_defence():
    log = []
    parts, model = federation((Both("both", log),), log)
    send(parts, model, "train")
    assert log == ["both before", "both for 0", "both", "base", "both after"]


def test_evaluation_asks_no_training_defence():
    log = []
    parts, model = federation((Trains("one", log), Both("both", log)), log)
    send(parts, model, "evaluate")
    assert log == ["both before", "both after"]


def test_without_training_defences_the_recipe_is_the_configured_one():
    log = []

    def mod(message, context, call_next):
        log.append("mod")
        return call_next(message, context)

    parts, model = federation((mod,), log)
    send(parts, model, "train")
    assert log == ["mod", "base"]
    assert not isinstance(mod, TrainingDefense)
