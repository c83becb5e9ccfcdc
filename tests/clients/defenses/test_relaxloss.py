"""Steps below the level ascend or flatten by turns, and the loss stays near the level."""

import math

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord
from local_training import context, copied, data, fitted, network, session
from torch.nn.functional import cross_entropy

from clients.defenses.relaxloss import RelaxLoss, flattening
from fedmia.errors import ConfigError
from fedmia.models.cnn import CNN
from fedmia.models.mlp import MLP
from fedmia.training import LocalSGD

LOGITS = torch.tensor([[0.0, math.log(2.0), 0.0], [0.0, 0.0, math.log(2.0)]])  # p: ¼ ½ ¼, ¼ ¼ ½
TARGETS = torch.tensor([[0.0, 1, 0], [1, 0, 0]])
LOSSES = torch.tensor([math.log(2.0), math.log(4.0)])  # of mean 1.04
DELTA = torch.tensor([[0.25, -0.5, 0.25], [-0.75, 0.25, 0.5]])


def at_epoch(done, partition_id=0):
    at = context(partition_id)
    at.state["relaxloss"] = ConfigRecord({"epochs": done})
    return at


def residual(alpha, done):
    current = session(RelaxLoss(alpha), at=at_epoch(done))
    return current.residual(LOGITS, TARGETS, DELTA.clone(), LOSSES)


@pytest.mark.parametrize("done", [0, 1])
def test_at_or_above_the_level_a_step_descends(done):
    delta, losses = residual(1.0, done)
    assert torch.equal(delta, DELTA)
    assert torch.equal(losses, LOSSES)


@pytest.mark.parametrize("done", [0, 2, 30])
def test_below_it_in_even_epochs_a_step_ascends(done):
    assert torch.equal(residual(1.1, done)[0], -DELTA)


@pytest.mark.parametrize("done", [1, 31])
def test_below_it_in_odd_epochs_a_step_flattens_posteriors(done):
    # targets (¼ ½ ¼) and (¼ ⅜ ⅜): the second record's class keeps its ¼
    wanted = torch.tensor([[0.0, 0, 0], [0, -0.125, 0.125]])
    assert torch.allclose(residual(1.1, done)[0], wanted, atol=1e-6)


def test_flattening_has_the_gradient_of_autograd():
    logits = torch.randn((6, 5), generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    p = logits.detach().softmax(1)
    own = p[range(6), labels][:, None]
    soft = ((1 - own) / 4).repeat(1, 5)
    soft[range(6), labels] = own[:, 0]
    loss = cross_entropy(logits, soft, reduction="sum")
    (wanted,) = torch.autograd.grad(loss, logits)
    found = flattening(logits.detach(), torch.eye(5)[labels])
    assert torch.allclose(found, wanted, atol=1e-6)


def naive(alpha, rounds, epochs, builder):
    """The algorithm with autograd, step by step; the epochs counted over all rounds."""
    (x, y), done = data(12), 0
    module = network(builder).module
    parameters = list(module.parameters())
    for r in range(rounds):
        rng = np.random.default_rng(r)
        for _ in range(epochs):
            order = torch.from_numpy(rng.permutation(12))
            for batch in order.split(4):
                logits = module(x[batch])
                loss = cross_entropy(logits, y[batch])
                if loss.item() < alpha and done % 2 == 0:
                    loss = -loss
                elif loss.item() < alpha:
                    p = logits.detach().softmax(1)
                    own = p[range(4), y[batch]][:, None]
                    soft = ((1 - own) / 2).repeat(1, 3)
                    soft[range(4), y[batch]] = own[:, 0]
                    loss = cross_entropy(logits, soft)
                with torch.no_grad():
                    for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                        p -= 0.2 * g
            done += 1
    return torch.cat([p.detach().flatten() for p in parameters])


@pytest.mark.parametrize("builder", [None, CNN([2], 5)])
@pytest.mark.parametrize(("rounds", "epochs"), [(20, 1), (7, 3)])
def test_rounds_of_training_are_those_of_a_naive_twin(builder, rounds, epochs):
    net, at = network(builder), context()
    recipe = LocalSGD(epochs, 4, lr=0.2, momentum=0.0)
    for r in range(rounds):
        at = copied(at)  # a fresh process for each message
        fitted(RelaxLoss(1.0), recipe, net, data(12), at, seed=r)
    assert torch.allclose(net.flat, naive(1.0, rounds, epochs, builder), atol=1e-4)


def test_the_count_of_epochs_outlives_the_round_and_is_the_clients_own():
    at, defense = context(), RelaxLoss()
    for done in (3, 6):
        fitted(defense, at=at)
        assert dict(at.state["relaxloss"]) == {"epochs": done}
        at = copied(at)
    assert not context(1).state.config_records


def test_the_mean_training_loss_stays_near_the_level():
    records, recipe = data(20), LocalSGD(400, 20, lr=0.1, momentum=0.0)
    ends = {}
    for name, defense in (("none", None), ("0.3", RelaxLoss(0.3)), ("0.6", RelaxLoss(0.6))):
        net, _ = fitted(defense, recipe, network(MLP([32])), records)
        with torch.no_grad():
            ends[name] = float(cross_entropy(net.module(records[0]), records[1]))
    assert ends["none"] < 0.1
    assert ends["0.3"] == pytest.approx(0.3, abs=0.1)
    assert ends["0.6"] == pytest.approx(0.6, abs=0.1)


@pytest.mark.parametrize("alpha", [0.0, -1.0, np.inf, np.nan])
def test_a_level_out_of_range_is_refused_in_one_line(alpha):
    with pytest.raises(ConfigError, match=f"^alpha={alpha}: expected more than 0 and finite$"):
        RelaxLoss(alpha)
