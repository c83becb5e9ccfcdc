import logging

import pytest
import torch
from torch import nn

from fedmia.models.cnn import CNN
from fedmia.models.mlp import MLP
from fedmia.models.resnet18 import ResNet18
from fedmia.signals import layerwise as module
from fedmia.signals.gradients import nowhere, one_by_one, trainable, unit_residual, vectorised
from fedmia.signals.layerwise import layerwise
from fedmia.signals.routes import choose_route, chunk_size, plan_route

CLASSES = 4


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        x = x + torch.tanh(self.first(x))
        return self.head(x + torch.tanh(self.second(x)))


class Tied(Residual):
    def __init__(self):
        super().__init__()
        self.second.weight = self.first.weight


class Shared(Residual):
    def forward(self, x):
        return self.head(torch.tanh(self.first(torch.tanh(self.first(x)))) + self.second(x))


class Functional(Residual):
    """Uses a layer's weight once more, past the layer: nothing but the numbers shows it."""

    def forward(self, x):
        x = torch.tanh(self.first(x)) + self.second(x)
        return self.head(nn.functional.linear(x, self.first.weight))


class Overwriting(Residual):
    """Changes what the first layer read, after it read it, where autograd needs no copy of it."""

    def forward(self, x):
        x = x.clone()
        hidden = self.first(x)
        x.zero_()
        return self.head(torch.tanh(hidden) + torch.tanh(self.second(hidden)))


class Rows(nn.Module):
    """Puts the sequence before the samples; with three steps it looks like three samples."""

    def __init__(self):
        super().__init__()
        self.step, self.head = nn.Linear(3, 8), nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.head(torch.relu(self.step(x.transpose(0, 1))).mean(0))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, CLASSES)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(3, 8) for _ in range(3))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, CLASSES)

    def forward(self, x):
        weights = torch.softmax(self.query(x) @ self.key(x).mT, -1)
        return self.head(self.norm(weights @ self.value(x)).mean(1))


class Branching(Residual):
    """Looks at numbers to decide what to compute, which vmap refuses; no layer is always used."""

    def forward(self, x):
        return self.head(self.first(x) if x.sum() > 1e9 else self.second(x))


def every_layer() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, groups=2, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 8, (3, 2), dilation=(1, 2), bias=False),
        nn.InstanceNorm2d(8, affine=True),
        nn.ReLU(inplace=True),
        nn.GroupNorm(2, 8),
        nn.Flatten(),
        nn.Linear(32, 16),
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(16),
        nn.Linear(16, CLASSES),
    )


def frozen() -> nn.Module:
    model = MLP(hidden=[8, 8])((6,), CLASSES)
    model[1].requires_grad_(False)
    model[3].bias.requires_grad_(False)
    return model


CASES = {
    "mlp": (lambda: MLP(hidden=[16, 5])((6,), CLASSES), (6,), layerwise),
    "cnn": (lambda: CNN(channels=[4, 6], hidden=8)((1, 8, 8), CLASSES), (1, 8, 8), layerwise),
    "resnet18": (lambda: ResNet18(width=4, groups=2)((3, 8, 8), CLASSES), (3, 8, 8), layerwise),
    "residual": (Residual, (6,), layerwise),
    "single layer": (lambda: nn.Linear(6, CLASSES), (6,), layerwise),
    "every layer, in-place ReLU": (every_layer, (2, 8, 8), layerwise),
    "frozen layers": (frozen, (6,), layerwise),
    "attention from linear layers": (Attention, (5, 3), layerwise),
    "tied weights": (Tied, (6,), vectorised),
    "a layer called twice": (Shared, (6,), vectorised),
    "a weight used past its layer": (Functional, (6,), vectorised),
    "samples in the second dimension": (Rows, (5, 3), vectorised),
    "as many steps as samples in the check": (Rows, (3, 3), vectorised),
    "a kind of layer without closed form": (
        lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(9, CLASSES)),
        (2, 4),
        vectorised,
    ),
    "attention block": (
        lambda: nn.Sequential(
            nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.Flatten(), nn.Linear(12, 4)
        ),
        (3, 4),
        vectorised,
    ),
    "lstm": (Recurrent, (5, 3), vectorised),
    "branching on numbers": (Branching, (6,), one_by_one),
}


def prepared(build, shape, n=9, directions=3):
    torch.manual_seed(0)
    model = build().eval()
    for p in model.parameters():
        p.data += 0.05 * torch.randn_like(p)
    x, y = torch.randn(n, *shape), torch.randint(CLASSES, (n,))
    raw = {k: torch.randn(directions, *p.shape) for k, p in trainable(model).items()}
    length = torch.sqrt(sum(d.flatten(1).square().sum(1) for d in raw.values()))
    scaled = {k: d / length.view(-1, *[1] * (d.ndim - 1)) for k, d in raw.items()}
    return model, x, y, scaled


def naive(model, x, y, directions):
    """Return norms (n, P) and inner products (n, K, P) of the cross-entropy's gradients."""
    model = model.double()
    parameters, norms, dots = trainable(model), [], []
    for i in range(len(y)):
        loss = nn.functional.cross_entropy(model(x[i : i + 1].double()), y[i : i + 1])
        pieces = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        gradient = {
            k: torch.zeros_like(p) if g is None else g
            for (k, p), g in zip(parameters.items(), pieces, strict=True)
        }
        norms.append(torch.stack([g.norm() for g in gradient.values()]))
        dots.append(
            torch.stack([(directions[k] * g).flatten(1).sum(1) for k, g in gradient.items()], 1)
        )
    return torch.stack(norms), torch.stack(dots)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize(("build", "shape", "expected"), CASES.values(), ids=CASES.keys())
def test_the_route_fits_the_model_and_agrees_with_the_naive_loop(build, shape, expected):
    model, x, y, directions = prepared(build, shape)
    route, rows = plan_route(model, x, y)
    assert route is expected
    lengths, squares, dots = route(model, x, y, directions)
    norm, dot = naive(model, x, y, directions)
    whole = norm.square().sum(1, keepdim=True).sqrt()
    assert (whole > 0).all()
    torch.testing.assert_close(
        lengths * squares.sum(1).double().sqrt(), whole.squeeze(1), rtol=1e-5, atol=0
    )
    # A parameter's own share is as exact as rounding of the whole allows.
    assert ((lengths[:, None] * squares.sqrt() - norm).abs() / whole).max() < 1e-5
    assert ((lengths[:, None, None] * dots - dot).abs() / whole[:, None]).max() < 1e-5
    assert rows >= 1


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("case", ["cnn", "every layer, in-place ReLU", "lstm", "tied weights"])
def test_without_directions_a_route_gives_the_same_norms(case):
    build, shape, route = CASES[case]
    model, x, y, directions = prepared(build, shape)
    _, squares, dots = route(model, x, y, nowhere(model))
    torch.testing.assert_close(squares, route(model, x, y, directions)[1])
    assert dots.shape == (len(y), 0, len(directions))


@pytest.mark.parametrize("route", [layerwise, vectorised, one_by_one])
def test_every_route_gives_the_numbers_worked_out_by_hand(route):
    model = nn.Linear(2, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    directions = {
        "weight": torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]]),
        "bias": torch.tensor([[0.0, 0.0], [0.0, 2.0]]),
    }
    # p = (1/2, 1/2), so ∂ℓ/∂z = (-1/2, 1/2); ∂ℓ/∂W = (-1/2, 1/2) ⊗ (3, 4), ∂ℓ/∂b = (-1/2, 1/2).
    length, squares, dots = route(model, torch.tensor([[3.0, 4.0]]), torch.tensor([0]), directions)
    assert (length**2 * squares[0]).tolist() == pytest.approx([0.5 * 25, 0.5])
    assert (length * dots[0, 0]).tolist() == pytest.approx([-1.5, 0.0])
    assert (length * dots[0, 1]).tolist() == pytest.approx([2.0, 1.0])


def test_a_residual_too_small_for_a_probability_keeps_its_direction():
    length, unit = unit_residual(torch.tensor([[90.0, 0.0, 0.0]]), torch.tensor([0]))
    assert length.item() == pytest.approx(6**0.5 * 2.718281828459045**-90, rel=1e-6)
    assert unit.tolist() == [pytest.approx([-2 / 6**0.5, 1 / 6**0.5, 1 / 6**0.5])]


def test_a_residual_of_zero_has_no_direction():
    length, unit = unit_residual(torch.tensor([[5000.0, 0.0]]), torch.tensor([0]))
    assert length.item() == 0
    assert unit.tolist() == [[0.0, 0.0]]


def test_an_input_overwritten_later_is_not_read_as_what_the_layer_saw():
    model, x, y, directions = prepared(Overwriting, (6,))
    model.first.weight.requires_grad_(False)  # else autograd itself refuses the model
    del directions["first.weight"]
    with pytest.raises(ValueError, match="layer first is not one unchanged row a sample"):
        layerwise(model, x, y, directions)


def test_rounding_beside_kinks_does_not_cost_a_deep_network_its_fast_route():
    torch.manual_seed(0)  # of which one ReLU flips between one row and three, in float32
    model = ResNet18(width=32, groups=8)((3, 32, 32), 10).eval()
    x, y = torch.randn(3, 3, 32, 32), torch.randint(10, (3,))
    assert choose_route(model, x, y) is layerwise


class Single(Residual):
    """Insists on float32."""

    def forward(self, x):
        return super().forward(x.float())


def test_a_model_that_insists_on_float32_has_its_route_too():
    model, x, y, _ = prepared(Single, (6,))
    assert choose_route(model, x, y) is layerwise
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("groups", [1, 2])
def test_large_convolutions_take_other_ways_to_the_same_numbers(monkeypatch, groups):
    def build():
        return nn.Sequential(
            nn.Conv2d(4, 6, 3, 2, 1, groups=groups), nn.Flatten(), nn.Linear(96, CLASSES)
        )

    model, x, y, directions = prepared(build, (4, 8, 8))
    plain = module.layerwise(model, x, y, directions)
    monkeypatch.setattr(module, "_LARGE_PRODUCT", 0)
    each = module.layerwise(model, x, y, directions)
    monkeypatch.setattr(module, "_OUTER_BYTES", 3000)  # too little for two samples
    tiled = module.layerwise(model, x, y, directions)
    for others in (each, tiled):
        for measured, expected in zip(others, plain, strict=True):
            torch.testing.assert_close(measured, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pixels", [2, 6], ids=["by pairs of positions", "by outer products"])
def test_a_large_weight_is_read_in_parts_for_many_samples(monkeypatch, pixels):
    def build():
        return nn.Sequential(
            nn.Conv2d(4, 6, 3, padding=1), nn.Flatten(), nn.Linear(6 * pixels**2, CLASSES)
        )

    model, x, y, directions = prepared(build, (4, pixels, pixels))
    expected = one_by_one(model, x, y, directions)
    monkeypatch.setattr(module, "_OUTER_BYTES", 3000)
    monkeypatch.setattr(module, "_TILE_MOST", 2)
    monkeypatch.setattr(module, "_TILE", (4, 7))  # neither divides 6 outputs of 36 inputs evenly

    for measured, wanted in zip(module.layerwise(model, x, y, directions), expected, strict=True):
        torch.testing.assert_close(measured.double(), wanted.double(), rtol=1e-5, atol=1e-5)
    norms = module.layerwise(model, x, y, nowhere(model))[1]
    torch.testing.assert_close(norms.double(), expected[1], rtol=1e-5, atol=1e-5)


def test_the_slow_route_is_never_taken_silently(caplog):
    model, x, y, _ = prepared(Branching, (6,))
    with caplog.at_level(logging.INFO):
        plan_route(model, x, y)
    assert "route 'layerwise' is not for this model" in caplog.text
    assert "one backward pass per candidate, which is slow" in caplog.text


def test_hooks_are_removed_even_when_the_route_fails():
    for build in (Residual, Shared):
        model, x, y, _ = prepared(build, (6,))
        plan_route(model, x, y)
        assert not any(m._forward_hooks for m in model.modules())


def test_larger_samples_go_through_fewer_at_a_time():
    small, large = (chunk_size(CNN()((3, s, s), 10), torch.randn(4, 3, s, s)) for s in (8, 96))
    assert small > 8 * large >= 8


def test_per_sample_gradients_count_where_a_route_builds_them():
    model, x = nn.Linear(1000, 1000), torch.randn(4, 1000)
    assert chunk_size(model, x, vectorised) < 10 < chunk_size(model, x, layerwise)
