"""Clipped sums agree with one backward pass a record, whatever the layers, and with Opacus."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fedmia.models.cnn import CNN
from fedmia.models.logistic import Logistic
from fedmia.models.mlp import MLP
from fedmia.models.resnet18 import ResNet18
from fedmia.privacy import per_record
from fedmia.privacy.per_record import ClippedGradient, mixes_records
from fedmia.training import FlatModel

N, CLASSES = 7, 4


def naive(model, x, y, clip):
    """The sum and the norms, by one backward pass a record, in float64."""
    trainable = [p for p in model.module.parameters() if p.requires_grad]
    total, norms = torch.zeros(model.flat.numel(), dtype=torch.float64), []
    for one, label in zip(x, y, strict=True):
        loss = cross_entropy(model.module(one[None]), label[None])
        found = torch.autograd.grad(loss, trainable, allow_unused=True, materialize_grads=True)
        g = torch.cat([f.reshape(-1) for f in found]).double()
        norms.append(float(g.norm()))
        total += g * min(1.0, clip / norms[-1]) if norms[-1] else 0.0
    return total, torch.tensor(norms)


def batch(*shape, n=N):
    return torch.rand(n, *shape), torch.randint(CLASSES, (n,))


def clipped(model, x, y, clip):
    model.module.train()
    model.grad.zero_()
    with ClippedGradient(model) as add:
        norms = add(x, y, clip)
        return model.grad.clone(), norms, add.route


def expect_agreement(module, x, y, route):
    model = FlatModel(module)
    for clip in (0.01, 0.7, 100.0):
        model.module.train()
        total, norms = naive(model, x, y, clip)
        ours, our_norms, taken = clipped(model, x, y, clip)
        assert taken == route
        assert torch.allclose(our_norms, norms, rtol=1e-4)
        assert (ours - total).norm() <= 1e-5 * total.norm()


MODELS = {
    "logistic": (Logistic(), (6,), "chain"),
    "mlp": (MLP([16, 8]), (2, 3), "chain"),
    "cnn": (CNN([4, 6], 10), (2, 8, 8), "layers"),
    "resnet18": (ResNet18(8, 4), (3, 8, 8), "layers"),
}


@pytest.mark.parametrize("name", MODELS)
def test_sums_over_every_model_of_the_repository_agree_with_one_backward_pass_a_record(name):
    torch.manual_seed(0)
    builder, shape, route = MODELS[name]
    expect_agreement(builder(shape, CLASSES), *batch(*shape), route)


class Twice(nn.Module):
    """Calls one layer twice."""

    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.Linear(5, 5), nn.Linear(5, CLASSES)

    def forward(self, x):
        return self.last(self.inner(torch.relu(self.inner(x))))


class Flat(Twice):
    """The same on many features."""

    def forward(self, x):
        return super().forward(x[:, :5])


class Scaled(nn.Module):
    """Has a parameter that belongs to no layer, and one that nothing uses."""

    def __init__(self):
        super().__init__()
        self.scale, self.idle = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(3))
        self.last = nn.Linear(5, CLASSES)

    def forward(self, x):
        return self.last(x * self.scale)


class Recurrent(nn.Module):
    """Reads x as a sequence."""

    def __init__(self):
        super().__init__()
        self.lstm, self.last = nn.LSTM(5, 6, batch_first=True), nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.last(self.lstm(x)[0][:, -1])


class Branching(Scaled):
    """Decides by a value; torch cannot differentiate it for many records at once."""

    def forward(self, x):
        return super().forward(x if x.sum() > 2.5 else -x)


class Skipping(nn.Module):
    """Has a layer that it does not call."""

    def __init__(self):
        super().__init__()
        self.idle, self.last = nn.Linear(5, 5), nn.Linear(5, CLASSES)

    def forward(self, x):
        return self.last(x)


class Changing(nn.Module):
    """Changes a layer's input after the call."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 5), nn.Linear(5, CLASSES)
        self.first.weight.requires_grad_(False)  # else torch itself would object

    def forward(self, x):
        x = x.clone()
        h = self.first(x)
        x.mul_(2)
        return self.last(h + x)


def tied():
    first, second = nn.Linear(5, 5), nn.Linear(5, 5)
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second, nn.Linear(5, CLASSES))


def frozen():
    layers = nn.Sequential(nn.Flatten(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, CLASSES))
    layers[1].weight.requires_grad_(False)
    layers[3].bias.requires_grad_(False)
    return layers


def on_images(*layers):
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(CLASSES))


LAYERS = {
    "no bias": (lambda: nn.Sequential(nn.Linear(5, CLASSES, bias=False)), (5,), "layers"),
    "frozen": (frozen, (5,), "layers"),
    "tanh": (
        lambda: nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, CLASSES)),
        (5,),
        "layers",
    ),
    "in place": (
        lambda: nn.Sequential(nn.Linear(5, 9), nn.ELU(inplace=True), nn.Linear(9, CLASSES)),
        (5,),
        "layers",
    ),
    "sequence": (
        lambda: nn.Sequential(
            nn.Linear(5, 6), nn.LayerNorm(6), nn.Flatten(), nn.Linear(18, CLASSES)
        ),
        (3, 5),
        "layers",
    ),
    "strides, groups": (
        lambda: on_images(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.GroupNorm(3, 6)),
        (4, 8, 8),
        "layers",
    ),
    "dilation, same": (
        lambda: on_images(nn.Conv2d(2, 3, 3, dilation=2, padding="same")),
        (2, 8, 8),
        "layers",
    ),
    "one dimension": (lambda: on_images(nn.Conv1d(2, 3, 3, padding=1)), (2, 9), "layers"),
    "instance norm": (
        lambda: on_images(nn.Conv2d(2, 3, 3), nn.InstanceNorm2d(3, affine=True)),
        (2, 8, 8),
        "layers",
    ),
    "circular": (
        lambda: on_images(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")),
        (2, 8, 8),
        "whole",
    ),
    "tied": (tied, (5,), "whole"),
    "twice": (Twice, (5,), "whole"),
    "own parameter": (Scaled, (5,), "whole"),
    "branching": (Branching, (5,), "whole"),
    "recurrent": (Recurrent, (3, 5), "whole"),
    "not called": (Skipping, (5,), "whole"),
    "input changed": (Changing, (5,), "whole"),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", LAYERS)
def test_sums_over_layers_of_every_kind_agree_with_one_backward_pass_a_record(name):
    torch.manual_seed(0)
    build, shape, route = LAYERS[name]
    x, y = batch(*shape)
    module = build()
    module(x)  # sizes lazy layers
    expect_agreement(module, x, y, route)


def test_words_are_embedded_record_by_record():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(11, 3), nn.Flatten(), nn.Linear(12, CLASSES))
    expect_agreement(module, torch.randint(11, (N, 4)), torch.randint(CLASSES, (N,)), "layers")


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_sums_agree_with_opacus_own_optimizer_without_noise(name):
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    torch.manual_seed(0)
    builder, shape, _ = MODELS[name]
    model, (x, y) = FlatModel(builder(shape, CLASSES)), batch(*shape)
    ours, norms, _ = clipped(model, x, y, 0.5)
    assert (norms > 0.5).any()
    theirs = GradSampleModule(FlatModel(model.module).module, loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(theirs.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=0.5,
        expected_batch_size=1,
        loss_reduction="sum",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cross_entropy(theirs(x), y, reduction="sum").backward()
    optimizer.pre_step()
    found = torch.cat([p.grad.reshape(-1) for p in theirs.parameters()])
    assert (ours - found).norm() <= 1e-5 * found.norm()


@pytest.mark.parametrize("name", MODELS)
def test_no_record_moves_the_sum_by_more_than_the_clip(name):
    torch.manual_seed(0)
    builder, shape, _ = MODELS[name]
    model, (x, y) = FlatModel(builder(shape, CLASSES)), batch(*shape)
    for i in range(N):
        one = 10 * x[i : i + 1], y[i : i + 1]
        _, norms, _ = clipped(model, *one, 1.0)
        clip = float(norms) / 3
        alone, _, _ = clipped(model, *one, clip)
        assert 0.9999 * clip < alone.double().norm() <= clip


def test_sums_are_added_to_what_is_there():
    model, (x, y) = FlatModel(Logistic()((5,), CLASSES)), batch(5)
    fresh, _, _ = clipped(model, x, y, 1.0)
    model.grad.fill_(3.0)
    with ClippedGradient(model) as add:
        add(x, y, 1.0)
    assert torch.allclose(model.grad, fresh + 3.0)


@pytest.mark.parametrize("name", MODELS)
def test_nobody_adds_nothing(name):
    builder, shape, _ = MODELS[name]
    model, (x, y) = FlatModel(builder(shape, CLASSES)), batch(*shape, n=0)
    total, norms, _ = clipped(model, x, y, 1.0)
    assert norms.shape == (0,)
    assert not total.any()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_record_without_a_finite_gradient_adds_nothing(name, bad):
    torch.manual_seed(0)
    builder, shape, _ = MODELS[name]
    model, (x, y) = FlatModel(builder(shape, CLASSES)), batch(*shape)
    others = torch.arange(N) != 3
    without, kept, _ = clipped(model, x[others], y[others], 0.5)
    x[3] = bad
    total, norms, _ = clipped(model, x, y, 0.5)
    assert norms.isinf().tolist() == [i == 3 for i in range(N)]
    assert torch.allclose(norms[others], kept)
    assert torch.allclose(total, without, atol=1e-6)


@pytest.mark.parametrize("name", ["cnn", "resnet18"])
def test_sums_in_pieces_are_those_in_one(name, monkeypatch):
    torch.manual_seed(0)
    builder, shape, _ = MODELS[name]
    model, (x, y) = FlatModel(builder(shape, CLASSES)), batch(*shape)
    whole, norms, _ = clipped(model, x, y, 0.5)
    monkeypatch.setattr(per_record, "_BYTES", 1)
    pieces, same, _ = clipped(model, x, y, 0.5)
    assert torch.allclose(whole, pieces, atol=1e-6)
    assert torch.allclose(norms, same, rtol=1e-5)


@pytest.mark.parametrize("build", [CNN([4], 5), lambda *_: nn.Sequential(nn.Flatten(), Flat())])
def test_nothing_stays_on_the_layers(build):
    model = FlatModel(build((2, 8, 8), CLASSES))
    before = set(vars(next(model.module.parameters())))
    clipped(model, *batch(2, 8, 8), 1.0)
    assert not any(layer._forward_hooks for layer in model.module.modules())
    assert set(vars(next(model.module.parameters()))) == before


def test_dropout_is_another_for_every_record_and_nothing_is_recorded_twice():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 200), nn.Dropout(0.5), nn.Linear(200, CLASSES))
    model, x = FlatModel(module), torch.ones(2, 5)
    _, norms, route = clipped(model, x, torch.zeros(2, dtype=torch.long), 1.0)
    assert route == "layers"
    assert norms[0] != norms[1]


class Centred(nn.Module):
    """Takes the mean over records from each."""

    def forward(self, x):
        return x - x.mean(0)


def test_models_that_mix_records_are_told_from_those_that_do_not():
    torch.manual_seed(0)
    x, _ = batch(2, 8, 8)
    assert mixes_records(nn.Sequential(nn.Flatten(), Centred(), nn.Linear(128, CLASSES)), x)
    assert mixes_records(nn.Sequential(nn.BatchNorm2d(2), nn.Flatten()).train(), x)
    for builder in (MLP(), CNN(), ResNet18(8, 4)):
        assert not mixes_records(builder((2, 8, 8), CLASSES), x)
    assert not mixes_records(nn.Sequential(nn.Flatten(), nn.Dropout(0.5)).train(), x)
