"""Soteria takes back what the last layer learnt of the features that tell most of a record."""

import numpy as np
import pytest
import torch
from changing import context, refusal
from torch import nn

from clients.defenses import soteria
from clients.defenses.soteria import Soteria, last_linear, sensitivity
from fedmia.errors import ConfigError
from fedmia.models.cnn import CNN
from fedmia.models.logistic import Logistic
from fedmia.models.mlp import MLP
from fedmia.training import FlatModel, LocalSGD


def two_features():
    """r = relu(x W) with columns of norms 5 and 1."""
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        module[0].bias.zero_()
    return module


def test_scores_by_hand():
    x = torch.tensor([[1.0, 1.0], [1.0, -0.5]])
    # r: (7, 1) and (1, 0); norms of the gradients 5 and 1, and an inactive feature scores 0.
    expected = [(7 / 5 + 1 / 5) / 2, (1 / 1 + 0) / 2]
    assert sensitivity(two_features(), x).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("builder", "shape"), [(MLP((20, 18)), (9,)), (CNN((4,), 17), (1, 4, 4)), (Logistic(), (5,))]
)
def test_scores_are_those_of_one_record_and_feature_at_a_time(builder, shape, monkeypatch):
    monkeypatch.setattr(soteria, "_RECORDS", 3)
    monkeypatch.setattr(soteria, "_FEATURES", 8)
    torch.manual_seed(0)
    module = builder(shape, 3).eval()
    x = torch.randn(7, *shape)
    inside = nn.Sequential(*list(module)[:-1])
    naive = []
    for record in x:
        one = record[None].requires_grad_()
        r = inside(one)[0]
        grads = [torch.autograd.grad(f, one, retain_graph=True)[0].norm() for f in r]
        ratios = [
            abs(f) / g if f != 0 else torch.tensor(0.0) for f, g in zip(r, grads, strict=True)
        ]
        naive.append(torch.stack(ratios).detach())
    assert sensitivity(module, x) == pytest.approx(torch.stack(naive).mean(0), rel=1e-4)


@pytest.mark.parametrize(("builder", "shape"), [(MLP((20,)), (9,)), (CNN((4,), 20), (1, 4, 4))])
def test_the_most_telling_columns_stay_and_all_else_is_trained_as_before(builder, shape):
    torch.manual_seed(0)
    module = builder(shape, 3)
    x, y = torch.randn(12, *shape), torch.arange(12) % 3
    plain, pruned = FlatModel(module), FlatModel(module)
    base = LocalSGD(2, 4)
    loss = base.fit(plain, x, y, np.random.default_rng(0))
    defended = Soteria(0.3).trains(base, context())
    assert defended.fit(pruned, x, y, np.random.default_rng(0)) == loss

    scores = sensitivity(plain.module.eval(), x)
    left_out = set(scores.argsort(descending=True)[:6].tolist())
    before, ours, theirs = (last_linear(m).weight for m in (module, pruned.module, plain.module))
    for feature in range(20):
        expected = before if feature in left_out else theirs
        assert torch.equal(ours[:, feature], expected[:, feature])
    assert any((theirs[:, f] != before[:, f]).any() for f in left_out)
    other, same = pruned.params(), plain.params()
    del other[f"{len(module) - 1}.weight"]
    assert all(np.array_equal(value, same[name]) for name, value in other.items())


def test_nothing_is_left_on_the_model():
    module = two_features()
    sensitivity(module, torch.ones(2, 2))
    assert not any(layer._forward_pre_hooks for layer in module.modules())
    assert all(p.grad is None for p in module.parameters())


def test_a_model_without_a_linear_layer_is_refused():
    with pytest.raises(ConfigError, match=r"^model=Sequential: expected one with a linear layer$"):
        Soteria().check_model(nn.Sequential(nn.Conv2d(1, 2, 1)))
    Soteria().check_model(two_features())


def test_bad_settings():
    assert refusal(Soteria, share=0) == "share=0: expected in (0, 1]"
