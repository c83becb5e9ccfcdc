"""Steps see mixtures of records and of labels, with the same shares."""

import numpy as np
import pytest
import torch
from local_training import CLASSES, data, fitted, network, session
from torch.nn.functional import cross_entropy

from clients.defenses.mixup import Mixup
from fedmia.errors import ConfigError
from fedmia.models.cnn import CNN
from fedmia.models.mlp import MLP
from fedmia.site import TrainingDefense
from fedmia.training import LocalSGD


def mixed(alpha, n=10, seed=3):
    x, y = data(n)
    targets = torch.eye(CLASSES)[y]
    return (x, targets), session(Mixup(alpha), seed=seed).batch(x, targets)


def test_records_and_labels_are_mixed_with_the_same_partner_and_share():
    (x, targets), (mixed_x, mixed_t) = mixed(1.0)
    # the twin draws as the session does, and mixes record by record
    rng = np.random.default_rng(3)
    share, other = float(rng.beta(1.0, 1.0)), rng.permutation(10)
    assert 0.05 < share < 0.95
    for i, j in enumerate(other):
        assert torch.allclose(mixed_x[i], share * x[i] + (1 - share) * x[j], atol=1e-6)
        assert torch.allclose(mixed_t[i], share * targets[i] + (1 - share) * targets[j], atol=1e-6)


def test_targets_stay_distributions_and_no_record_is_made_up():
    (x, targets), (mixed_x, mixed_t) = mixed(0.5)
    assert torch.allclose(mixed_t.sum(1), torch.ones(10))
    assert torch.allclose(mixed_x.sum(0), x.sum(0), atol=1e-5)
    assert torch.allclose(mixed_t.sum(0), targets.sum(0), atol=1e-5)
    assert not any(torch.allclose(a, b, atol=1e-3) for a in mixed_x for b in x)


def test_what_was_given_is_not_changed():
    (x, targets), _ = mixed(1.0)
    assert torch.equal(x, data()[0])
    assert torch.equal(targets, torch.eye(CLASSES)[data()[1]])


@pytest.mark.parametrize(("alpha", "middle"), [(0.01, 0.0), (1.0, 1 / 6), (1000.0, 0.25)])
def test_alpha_decides_how_much_is_mixed(alpha, middle):
    # E[λ(1−λ)] = α / (2(2α + 1)) for Beta(α, α)
    current = session(Mixup(alpha))
    x = torch.tensor([[0.0], [1.0]])
    drawn = [current.batch(x, x)[0].flatten() for _ in range(4000)]
    products = torch.stack([2 * a * b for a, b in drawn])  # 0 where partners are themselves
    assert float(products.mean()) == pytest.approx(middle, abs=0.01)


def test_training_memorises_less_and_is_another():
    records = data(12)
    recipe = LocalSGD(local_epochs=100, batch_size=4, lr=0.1)
    losses = {}
    for name, defense in (("plain", None), ("mixup", Mixup())):
        net, _ = fitted(defense, recipe, network(MLP([64])), records)
        losses[name] = cross_entropy(net.module(records[0]), records[1]).item()
    assert losses["plain"] < 0.02
    assert losses["mixup"] > 10 * losses["plain"]


@pytest.mark.parametrize("builder", [None, CNN([2], 5)])
def test_the_same_generator_gives_the_same_bytes(builder):
    models = [fitted(Mixup(), net=network(builder), seed=s)[0].flat for s in (3, 3, 4)]
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


def test_a_batch_of_one_record_stays_as_it_is():
    (x, targets), (mixed_x, mixed_t) = mixed(1.0, n=1)
    assert torch.allclose(mixed_x, x)
    assert torch.allclose(mixed_t, targets)


@pytest.mark.parametrize("alpha", [0.0, -1.0, np.inf, np.nan])
def test_alpha_out_of_range_is_refused_in_one_line(alpha):
    expected = f"^alpha={alpha}: expected more than 0 and finite$"
    with pytest.raises(ConfigError, match=expected):
        Mixup(alpha)
    assert isinstance(Mixup(), TrainingDefense)
