"""A client's training with a defence, as the tests of training defences ask for it."""

import numpy as np
import torch
from flwr.app import Context, RecordDict

from fedmia.models.mlp import MLP
from fedmia.training import FlatModel, LocalSGD

SHAPE, CLASSES = (1, 4, 4), 3
RECIPE = LocalSGD(local_epochs=3, batch_size=4, lr=0.1)


def data(n=10, seed=1):
    """Images and labels; the labels are noise, so that only memory predicts them."""
    rng = torch.Generator().manual_seed(seed)
    return torch.rand((n, *SHAPE), generator=rng), torch.randint(CLASSES, (n,), generator=rng)


def network(builder=None):
    torch.manual_seed(0)
    return FlatModel((builder or MLP([6, 5]))(SHAPE, CLASSES))


def context(partition_id=0, state=None):
    return Context(1, 7, {"partition-id": partition_id}, state or RecordDict(), {})


def copied(at):
    """The client in a fresh process, with what it kept."""
    return context(at.node_config["partition-id"], RecordDict(dict(at.state.items())))


def fitted(defense, recipe=RECIPE, net=None, records=None, at=None, seed=3):
    """Train with a defence, ``None`` for none; return the model and the loss."""
    net = net or network()
    trainer = defense.trains(recipe, at or context()) if defense else recipe
    torch.manual_seed(5)
    loss = trainer.fit(net, *(records or data()), np.random.default_rng(seed))
    return net, loss


def session(defense, records=None, net=None, at=None, seed=3):
    """Begin the one session that a defence adds."""
    (ingredient,) = defense.trains(RECIPE, at or context()).ingredients
    return ingredient.begin(net or network(), *(records or data()), np.random.default_rng(seed))
