"""Sub-models: the same number of units every time, with all weights into them and out of them."""

import numpy as np
import pytest
import torch
from torch import nn

from fedmia.errors import ConfigError
from fedmia.models.cnn import CNN
from fedmia.models.logistic import Logistic
from fedmia.models.mlp import MLP
from fedmia.models.resnet18 import ResNet18
from fedmia.submodel import check_stack, drawn_mask, only


def state(model):
    return {k: v.detach().numpy() for k, v in model.state_dict().items()}


def test_of_a_dense_network_rows_biases_and_columns_of_the_same_units_are_kept():
    params = state(MLP([4, 6])((1, 1, 3), 2))
    mask = drawn_mask(params, 0.5, np.random.default_rng(0))
    first, second = mask["1.bias"], mask["3.bias"]
    assert (first.sum(), second.sum()) == (2, 3)
    np.testing.assert_array_equal(mask["1.weight"], np.outer(first, np.ones(3)))
    np.testing.assert_array_equal(mask["3.weight"], np.outer(second, first))
    np.testing.assert_array_equal(mask["5.weight"], np.outer(np.ones(2), second))
    assert mask["5.bias"].all()


def test_a_channel_has_all_its_pixels_where_it_is_flattened():
    params = state(CNN([2, 4], 6)((1, 8, 8), 3))
    mask = drawn_mask(params, 0.5, np.random.default_rng(1))
    channels = mask["3.bias"]
    assert channels.sum() == 2
    into = mask["3.weight"].any(axis=(2, 3))
    np.testing.assert_array_equal(into, np.outer(channels, mask["0.bias"]))
    of_pixels = mask["7.weight"].reshape(6, 4, 4)
    np.testing.assert_array_equal(
        of_pixels, np.broadcast_to(np.outer(mask["7.bias"], channels)[:, :, None], (6, 4, 4))
    )


def test_one_unit_is_kept_at_least_and_all_of_them_with_a_share_of_one():
    params = state(MLP([4])((3,), 2))
    assert drawn_mask(params, 0.01, np.random.default_rng(0))["1.bias"].sum() == 1
    assert all(m.all() for m in drawn_mask(params, 1.0, np.random.default_rng(0)).values())


def test_the_units_are_drawn_anew_each_of_them_as_often():
    params, rng = state(MLP([8])((3,), 2)), np.random.default_rng(0)
    draws = np.array([drawn_mask(params, 0.75, rng)["1.bias"] for _ in range(2000)])
    np.testing.assert_allclose(draws.mean(axis=0), 0.75, atol=0.04)


def test_what_is_left_out_is_zero_and_what_is_not_floating_stays():
    params = {"weight": np.ones((2, 2), np.float32), "seen": np.array(3)}
    found = only(params, {"weight": np.array([[True, False], [False, True]])})
    np.testing.assert_array_equal(found["weight"], np.eye(2))
    assert found["weight"].dtype == np.float32
    assert found["seen"] == 3


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Logistic()((3,), 2), "model=Sequential: expected a model with hidden units"),
        (nn.Linear(3, 2), "model=Linear: expected nn.Sequential of linear and conv"),
        (ResNet18()((3, 32, 32), 2), "model=Sequential: expected no GroupNorm, which may"),
        (
            nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2)),
            "model=Sequential: expected no Sigmoid, which may make something of a unit",
        ),
        (
            nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)),
            "model=Sequential: expected no LayerNorm, which may",
        ),
        (
            nn.Sequential(nn.Conv2d(2, 2, 1, groups=2), nn.Conv2d(2, 2, 1)),
            "model=Sequential: expected no Conv2d, which may",
        ),
    ],
    ids=["no units", "no stack", "residual", "sigmoid", "norm", "groups"],
)
def test_a_model_whose_units_cannot_be_left_out_is_refused(model, said):
    with pytest.raises(ConfigError, match=f"^{said}"):
        check_stack(model)


@pytest.mark.parametrize(
    "activation",
    [nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh],
    ids=lambda a: a.__name__,
)
def test_a_unit_without_weights_stays_without_them_under_every_activation_allowed(activation):
    model = nn.Sequential(nn.Linear(3, 4), activation(), nn.Linear(4, 2))
    check_stack(model)
    mask = drawn_mask(state(model), 0.5, np.random.default_rng(0))
    model.load_state_dict({k: torch.tensor(v) for k, v in only(state(model), mask).items()})
    model(torch.randn(5, 3)).square().sum().backward()
    for name, p in model.named_parameters():
        assert not p.grad[~torch.tensor(mask[name])].any()
        assert p.grad[torch.tensor(mask[name])].any()
