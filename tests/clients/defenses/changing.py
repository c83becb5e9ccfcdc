"""A client whose update is given, behind a mod that changes it."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from fedmia.arrays import to_params, to_record
from fedmia.errors import ConfigError
from fedmia.records import PAYLOAD, difference

METRICS = {"num-examples": 20, "train-loss": 0.25}


def identify():
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def ask(params, server_round=1, kind="train"):
    content = {"arrays": to_record(params), "config": ConfigRecord({"server-round": server_round})}
    return Message(RecordDict(content), 7, kind)


def context(partition_id=0):
    return Context(1, 7, {"partition-id": partition_id}, RecordDict(), {})


def trains(delta, params):
    """Answers with the model moved so far; what has no update stays."""

    def train(message, context):
        moved = {k: (v + delta.get(k, 0)).astype(v.dtype) for k, v in params.items()}
        content = {"arrays": to_record(moved), "metrics": MetricRecord(METRICS)}
        return Message(RecordDict(content), reply_to=message)

    return train


def sent(mod, delta, where=None, server_round=1, params=None):
    """The update that arrives, as strategies read it, and the bytes that are stated."""
    identify()
    params = params or {name: np.zeros_like(values) for name, values in delta.items()}
    message = ask(params, server_round)
    reply = mod(message, where or context(), trains(delta, params))
    metrics = dict(reply.content["metrics"])
    size = metrics.pop(PAYLOAD)
    assert metrics == METRICS
    return difference(to_params(reply.content["arrays"]), params), size


def vector(*values):
    return {"w": np.array(values, np.float32)}


def normal(seed=0, **shapes):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def refusal(kind, **settings):
    with pytest.raises(ConfigError) as caught:
        kind(**settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)
