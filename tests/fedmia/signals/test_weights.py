import numpy as np
import pytest
import torch
from torch import nn

from fedmia.errors import ConfigError
from fedmia.records import Update
from fedmia.signals.weights import load, unit_directions


def params(model):
    return {k: v.numpy().copy() for k, v in model.state_dict().items()}


def test_buffers_move_with_the_update_integers_included():
    w = params(nn.BatchNorm1d(2))
    delta = {k: np.full_like(v, 3) for k, v in w.items()}
    model = nn.BatchNorm1d(2)
    load(model, w, Update(1, 20, delta))
    assert model.num_batches_tracked.item() == 3
    assert model.num_batches_tracked.dtype == torch.int64
    assert model.running_var.tolist() == [4.0, 4.0]
    load(model, w)
    assert model.num_batches_tracked.item() == 0
    assert model.weight.tolist() == [1.0, 1.0]


def test_tied_weights_are_set_once_and_stay_tied():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    w = np.array([[1, 2], [3, 4]], np.float32)
    load(model, {"0.weight": w, "1.weight": w}, Update(1, 20, {"0.weight": w, "1.weight": w}))
    assert model[1].weight is model[0].weight
    assert model[0].weight.tolist() == [[2, 4], [6, 8]]


def test_directions_are_descent_directions_of_unit_length():
    model = nn.Linear(1, 2)
    delta = {"weight": np.array([[3], [0]], np.float32), "bias": np.array([0, -4], np.float32)}
    zero = {k: v * 0 for k, v in delta.items()}
    directions, lengths, parts = unit_directions(model, [delta, zero])
    assert lengths.tolist() == [5.0, 0.0]
    assert parts.tolist() == [[3.0, 4.0], [0.0, 0.0]]
    torch.testing.assert_close(directions["weight"], torch.tensor([[[-0.6], [0]], [[0], [0]]]))
    torch.testing.assert_close(directions["bias"], torch.tensor([[0, 0.8], [0, 0]]))


def test_only_trainable_parameters_have_a_direction():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].weight.requires_grad_(False)
    delta = {k: np.ones_like(v) for k, v in params(model).items()}
    directions, lengths, parts = unit_directions(model, [delta])
    assert list(directions) == ["0.bias", "1.weight", "1.bias"]
    torch.testing.assert_close(parts, torch.full((1, 3), 2**0.5, dtype=torch.float64))
    assert lengths.item() == pytest.approx(6**0.5)


def test_no_updates_give_no_directions():
    directions, lengths, parts = unit_directions(nn.Linear(3, 2), [])
    assert directions["weight"].shape == (0, 2, 3)
    assert lengths.shape == (0,)
    assert parts.shape == (0, 2)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_parameters_of_another_architecture_are_named(change):
    w = params(nn.Linear(2, 2))
    if change == "missing":
        del w["bias"]
    elif change == "extra":
        w["scale"] = np.ones(1, np.float32)
    else:
        w["bias"] = np.ones(3, np.float32)
    named = "scale" if change == "extra" else "bias"
    with pytest.raises(ConfigError, match=f"model=Linear: expected .* where {named} is"):
        load(nn.Linear(2, 2), w)
