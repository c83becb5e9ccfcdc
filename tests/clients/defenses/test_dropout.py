"""Inputs of hidden layers are dropped while a client trains, and nothing stays on the model."""

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import FedAvg
from local_training import CLASSES, SHAPE, fitted, network, session
from torch import nn

from clients.defenses.dropout import Dropout
from fedmia import composition
from fedmia.errors import ConfigError
from fedmia.models.cnn import CNN
from fedmia.models.logistic import Logistic
from fedmia.models.mlp import MLP
from fedmia.stack import Stack


def masks(p, count=20000):
    """The factors that a session has hidden inputs multiplied by."""
    net = network()
    current = session(Dropout(p), net=net)
    torch.manual_seed(0)
    factors = net._factors(torch.ones(count))
    current.end()
    return factors


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_a_share_p_is_dropped_and_the_rest_made_up_for(p):
    factors = masks(p)
    kept = torch.tensor(1 / (1 - p))
    assert set(factors.unique().tolist()) == {0.0, float(kept)}
    assert float((factors == 0).float().mean()) == pytest.approx(p, abs=0.01)
    assert float(factors.mean()) == pytest.approx(1.0, abs=0.02)


class Dropping(nn.Module):
    """A layer of dropout, as autograd sees it."""

    def forward(self, x):
        return x * (torch.rand(x.shape) >= 0.5) / 0.5 if self.training else x


def with_layers(layers):
    """The same network with layers of dropout before its hidden layers."""
    return lambda shape, classes: nn.Sequential(*layers(Dropping()))


def test_a_fit_is_that_of_a_network_with_layers_of_dropout_of_its_own():
    def mlp(dropout):
        torch.manual_seed(0)
        first, second, last = nn.Linear(16, 6), nn.Linear(6, 5), nn.Linear(5, CLASSES)
        relu = nn.ReLU()
        yield from (nn.Flatten(), first, relu, dropout, second, relu, dropout, last)

    theirs, _ = fitted(None, net=network(with_layers(mlp)))
    ours, _ = fitted(Dropout(0.5))
    assert torch.allclose(ours.flat, theirs.flat, atol=1e-6)
    plain, _ = fitted(None)
    assert not torch.allclose(ours.flat, plain.flat, atol=1e-3)


def test_a_convolutional_fit_is_that_of_a_network_with_layers_of_dropout_of_its_own():
    def cnn(dropout):
        torch.manual_seed(0)
        yield from (nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        yield from (dropout, nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        yield from (nn.Flatten(), dropout, nn.Linear(3, 5), nn.ReLU(), dropout, nn.Linear(5, 3))

    theirs, _ = fitted(None, net=network(with_layers(cnn)))
    ours, _ = fitted(Dropout(0.5), net=network(CNN([2, 3], 5)))
    assert torch.allclose(ours.flat, theirs.flat, atol=1e-6)


@pytest.mark.parametrize("builder", [MLP([6, 5]), CNN([2], 5)])
def test_nothing_stays_on_the_module(builder):
    net, _ = fitted(Dropout(), net=network(builder))
    assert not any(layer._forward_pre_hooks for layer in net.module.modules())
    again, _ = fitted(None, net=network(builder))
    net.load(network(builder).params())
    after, _ = fitted(None, net=net)
    assert torch.equal(after.flat, again.flat)


def test_a_model_without_hidden_layers_is_refused_before_training():
    stack = Stack(
        FedAvg(fraction_evaluate=0.0),
        {"dropout": Dropout()},
        [20],
        model=Logistic()(SHAPE, CLASSES),
    )
    expected = r"^client\.defenses\.dropout: model=Sequential: expected a model with two linear .*"
    with pytest.raises(ConfigError, match=expected):
        composition.check(stack)


@pytest.mark.parametrize("p", [0.0, 1.0, np.nan])
def test_a_probability_out_of_range_is_refused_in_one_line(p):
    with pytest.raises(ConfigError, match=rf"^p={p}: expected in \(0, 1\)$"):
        Dropout(p)
