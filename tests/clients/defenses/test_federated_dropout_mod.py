"""A client of federated dropout trains what a smaller network would, and sends no more."""

import numpy as np
import pytest
import torch
from changing import context, identify
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from torch import nn

from clients.defenses.federated_dropout import RECORD, FederatedDropout
from fedmia.arrays import to_params, to_record
from fedmia.errors import ConfigError
from fedmia.models.cnn import CNN
from fedmia.models.mlp import MLP
from fedmia.records import PAYLOAD
from fedmia.submodel import drawn_mask
from fedmia.training import FlatModel, LocalSGD

RECIPE = LocalSGD(local_epochs=3, batch_size=4, lr=0.05, momentum=0.9, weight_decay=0.01)


@pytest.fixture(autouse=True)
def _identity():
    identify()


def state(model):
    return {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}


def asked(params, seed=5, keep=0.5):
    told = ConfigRecord({"seed": seed, "keep": keep})
    content = {"arrays": to_record(params), "config": ConfigRecord({"server-round": 1})}
    return Message(RecordDict({**content, RECORD: told}), 7, "train")


def training(model, x, y):
    """Train what is sent, as an honest client does."""

    def train(message, context):
        flat = FlatModel(model)
        flat.load(to_params(message.content["arrays"]))
        loss = RECIPE.fit(flat, x, y, np.random.default_rng(0))
        told = MetricRecord({"num-examples": len(y), "train-loss": loss})
        content = {"arrays": to_record(flat.view()), "metrics": told}
        return Message(RecordDict(content), reply_to=message)

    return train


def smaller(params, mask):
    """The arrays of the sub-model alone: rows and columns that have no kept coordinate go."""
    found = {}
    for name, value in params.items():
        kept = mask[name]
        for axis in range(kept.ndim):
            others = tuple(a for a in range(kept.ndim) if a != axis)
            value = value.compress(kept.any(axis=others), axis=axis)
        found[name] = value
    return found


CASES = {
    "dense": (MLP([8, 6])((5,), 3), MLP([4, 3])((5,), 3), (5,)),
    "convolutional": (CNN([4, 4], 6)((1, 8, 8), 3), CNN([2, 2], 3)((1, 8, 8), 3), (1, 8, 8)),
}


@pytest.mark.parametrize("kind", CASES)
def test_the_update_is_that_of_an_actually_smaller_network(kind):
    large, small, shape = CASES[kind]
    rng = np.random.default_rng(3)
    x = torch.tensor(rng.normal(size=(10, *shape)), dtype=torch.float32)
    y = torch.tensor(rng.integers(3, size=10))
    params = state(large)
    mask = drawn_mask(params, 0.5, np.random.default_rng(5))

    reply = FederatedDropout(0.5)(asked(params), context(), training(large, x, y))
    found = to_params(reply.content["arrays"])

    twin = FlatModel(small)
    twin.load(smaller(params, mask))
    loss = RECIPE.fit(twin, x, y, np.random.default_rng(0))
    for name, after in twin.params().items():
        np.testing.assert_allclose(smaller(found, mask)[name], after, atol=2e-6)
        np.testing.assert_array_equal(found[name][~mask[name]], params[name][~mask[name]])
    metrics = reply.content["metrics"]
    assert metrics["train-loss"] == pytest.approx(loss, abs=1e-5)
    assert metrics["num-examples"] == 10
    assert metrics[PAYLOAD] == 4 * sum(p.numel() for p in small.parameters())


def test_the_message_is_left_as_it_came():
    params = state(MLP([4])((5,), 3))
    message = asked(params)

    def train(inner, context):
        assert (to_params(inner.content["arrays"])["1.bias"] == 0).sum() >= 2
        raise RuntimeError("away")

    with pytest.raises(RuntimeError, match=r"^away$"):
        FederatedDropout(0.5)(message, context(), train)
    found = to_params(message.content["arrays"])
    assert all(np.array_equal(found[k], params[k]) for k in params)


def test_a_message_that_names_no_sub_model_or_another_one_is_refused():
    message = asked(state(MLP([4])((5,), 3)), keep=0.75)
    with pytest.raises(ValueError, match=r"expected keep=0\.5 and a seed, got keep=0\.75$"):
        FederatedDropout(0.5)(message, context(), None)
    del message.content[RECORD]
    with pytest.raises(ValueError, match=r"got keep=None$"):
        FederatedDropout(0.5)(message, context(), None)


def test_other_messages_are_passed_on():
    message = Message(RecordDict(), 7, "evaluate")
    assert FederatedDropout()(message, context(), lambda m, c: m) is message


def test_in_a_shadow_an_update_loses_the_units_of_a_random_sub_model():
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    update = {k: np.ones(v.shape) for k, v in state(model).items()}
    found = FederatedDropout(0.25).perturbed(update, np.random.default_rng(0))
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in update.items()}
    assert [int(v.sum()) for v in found.values()] == [6, 2, 4, 2]


@pytest.mark.parametrize("keep", [0.0, 1.5])
def test_a_share_out_of_range_is_refused(keep):
    with pytest.raises(ConfigError, match=rf"^keep={keep}: expected in \(0, 1\]$"):
        FederatedDropout(keep)
