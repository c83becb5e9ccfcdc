import re

import pytest
import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch import nn
from torch.func import functional_call, grad, vmap

from fedmia.errors import ConfigError
from fedmia.models.cnn import CNN
from fedmia.models.logistic import Logistic
from fedmia.models.mlp import MLP
from fedmia.models.resnet18 import ResNet18

FACTORIES = {
    "logistic": (Logistic(), (5,)),
    "logistic on images": (Logistic(), (1, 8, 8)),
    "mlp": (MLP(hidden=[7, 6]), (5,)),
    "mlp without hidden layers": (MLP(hidden=[]), (5,)),
    "mlp on images": (MLP(hidden=[7]), (2, 4, 4)),
    "cnn": (CNN(channels=[4, 6], hidden=8), (1, 8, 8)),
    "cnn on odd sizes": (CNN(channels=[4, 6], hidden=8), (3, 11, 9)),
    "resnet18": (ResNet18(width=4, groups=2), (3, 8, 8)),
}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.fixture(params=FACTORIES.values(), ids=FACTORIES.keys())
def built(request):
    factory, shape = request.param
    torch.manual_seed(3)
    return factory(shape, 4), torch.randn(6, *shape), torch.randint(4, (6,))


def loss_of(model, weights, x, y):
    return nn.functional.cross_entropy(functional_call(model, weights, (x,)), y)


def test_logits_have_one_row_a_sample_and_one_column_a_class(built):
    model, x, _ = built
    assert model(x).shape == (6, 4)


def test_opacus_and_vmap_and_a_loop_give_the_same_per_sample_gradients(built):
    model, x, y = built
    assert ModuleValidator.validate(model, strict=False) == []
    weights = {k: p.detach() for k, p in model.named_parameters()}

    def one(weights, x, y):
        return loss_of(model, weights, x[None], y[None])

    batched = vmap(grad(one), in_dims=(None, 0, 0))(weights, x, y)
    loop = [
        torch.autograd.grad(
            nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), list(model.parameters())
        )
        for i in range(len(y))
    ]
    wrapped = GradSampleModule(model, loss_reduction="sum")
    nn.functional.cross_entropy(wrapped(x), y, reduction="sum").backward()
    for j, (name, parameter) in enumerate(model.named_parameters()):
        expected = torch.stack([gradients[j] for gradients in loop])
        assert expected.abs().sum() > 0, name
        torch.testing.assert_close(batched[name], expected, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(parameter.grad_sample, expected, rtol=1e-3, atol=1e-5)


def test_nothing_is_changed_in_place(built):
    model, x, _ = built
    assert not any(getattr(module, "inplace", False) for module in model.modules())
    before = x.clone()
    model(x)
    assert torch.equal(x, before)


def test_a_sample_is_treated_the_same_alone_and_in_company(built):
    model, x, _ = built
    torch.testing.assert_close(model.train()(x)[2:3], model(x[2:3]), rtol=1e-4, atol=1e-5)


def test_the_seed_decides_the_weights():
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(torch.cat([p.flatten() for p in MLP()((64,), 10).parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_sizes_are_those_counted_by_hand():
    assert parameters(MLP()((64,), 10)) == 85_002
    assert parameters(Logistic()((64,), 10)) == 65 * 10
    convolutions = (9 * 1 + 1) * 32 + (9 * 32 + 1) * 64
    assert parameters(CNN()((1, 8, 8), 10)) == convolutions + (64 * 4 + 1) * 128 + 129 * 10
    # The published CIFAR ResNet-18; GroupNorm has as many parameters as BatchNorm.
    assert parameters(ResNet18()((3, 32, 32), 10)) == 11_173_962


def test_resnet18_halves_three_times_and_ends_with_eight_times_the_width():
    model = ResNet18(width=4, groups=2)((3, 16, 16), 10)
    assert model[:-3](torch.randn(1, 3, 16, 16)).shape == (1, 32, 2, 2)


@pytest.mark.parametrize(
    ("factory", "shape", "message"),
    [
        (CNN(), (30,), "model=cnn: expected images (channels, height, width)"),
        (CNN(), (1, 3, 8), "at least 4x4 pixels, got input shape (1, 3, 8)"),
        (ResNet18(), (30,), "model=resnet18: expected images (channels, height, width)"),
        (ResNet18(), (3, 4, 4), "got input shape (3, 4, 4)"),
    ],
)
def test_an_input_that_does_not_fit_is_named(factory, shape, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        factory(shape, 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("factory", "settings", "message"),
    [
        (MLP, {"hidden": [256, 0]}, "hidden=[256, 0]: expected a list of positive integers"),
        (MLP, {"hidden": [2.5]}, "hidden=[2.5]: expected"),
        (CNN, {"channels": []}, "channels=[]: expected a list of one or more"),
        (CNN, {"hidden": 0}, "hidden=0: expected a positive integer"),
        (ResNet18, {"width": 0}, "width=0: expected a positive integer"),
        (ResNet18, {"groups": 3}, "groups=3: expected a divisor of width=64"),
    ],
)
def test_a_setting_out_of_range_is_named(factory, settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        factory(**settings)
