"""Crafted records have large gradients that are nearly orthogonal to all others."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fedmia.canaries import crafted as module
from fedmia.canaries.crafted import Crafted
from fedmia.errors import ConfigError
from fedmia.records import Examples

CLASSES = 4


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, CLASSES))


def records(n, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, size=(n, 12)).astype(np.float32)
    x[:, 3] = 0.25  # a feature without range
    return Examples(x, rng.integers(CLASSES, size=n))


def naive_gradients(model, examples):
    rows = []
    for x, y in zip(torch.tensor(examples.x), torch.tensor(examples.y), strict=True):
        loss = cross_entropy(model.eval()(x[None]), y[None])
        rows.append(
            torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, [*model.parameters()])])
        )
    return torch.stack(rows)


def plant(seed=0, count=20, **changes):
    recipe = replace(Crafted(count=count), **changes)
    given = records(count, 1), records(40, 2)
    return recipe.plant(*given, network(), CLASSES, np.random.default_rng(seed)), *given


def measures(examples, others):
    """Mean gradient norm; mean squared cosine with the others and with one another."""
    g, u = naive_gradients(network(), examples), naive_gradients(network(), others)
    unit, avoided = (nn.functional.normalize(v, dim=1) for v in (g, u))
    among = unit @ unit.T - torch.eye(len(unit))
    crossed = torch.cat([among, unit @ avoided.T], dim=1)
    return float(g.norm(dim=1).mean()), float(crossed.square().mean())


def test_gradients_are_those_of_one_record_at_a_time():
    model, given = network(), records(5, 3)
    found = module._Gradients(model).of(torch.tensor(given.x), torch.tensor(given.y))
    torch.testing.assert_close(found, naive_gradients(model, given))


@pytest.mark.parametrize("room", [2**24, 7 * (12 * 16 + 16 + 32 + 16 * 4 + 4)])
def test_crafting_enlarges_gradients_and_turns_them_away(monkeypatch, room):
    monkeypatch.setattr(module, "_ROOM", room)
    made, sources, others = plant()
    norm, crossed = measures(Examples(sources.x, made.y), others)
    new_norm, new_crossed = measures(made, others)
    assert new_norm > norm
    assert new_crossed < 0.7 * crossed


def test_records_stay_within_the_range_of_the_data():
    made, sources, others = plant(lr=0.5)
    known = np.concatenate([sources.x, others.x])
    assert (made.x >= known.min(axis=0) - 1e-6).all()
    assert (made.x <= known.max(axis=0) + 1e-6).all()
    assert (made.x[:, 3] == np.float32(0.25)).all()
    assert made.x.shape == sources.x.shape
    assert made.x.dtype == np.float32
    assert (made.y != sources.y).all()
    assert len(np.unique(made.x, axis=0)) == len(made)


def test_the_same_records_come_of_any_number_of_threads_and_leave_it_as_it_was():
    before = torch.get_num_threads()
    first, _, _ = plant(steps=3)
    torch.set_num_threads(2)
    try:
        second, _, _ = plant(steps=3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(first.x, second.x)


def test_images_and_a_model_that_convolves_can_be_crafted():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    x = np.random.default_rng(0).uniform(size=(60, 1, 8, 8)).astype(np.float32)
    data = Examples(x, np.arange(60) % 3)
    made = Crafted(count=20, steps=2).plant(
        data[:20], data[20:], model, 3, np.random.default_rng(0)
    )
    assert made.x.shape == (20, 1, 8, 8)
    assert (made.x != data.x[:20]).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize(
    ("bad", "line"),
    [({"steps": 0}, "steps=0: expected"), ({"lr": 0.0}, "lr=0.0"), ({"count": 5}, "count=5: exp")],
)
def test_what_cannot_be_is_refused(bad, line):
    with pytest.raises(ConfigError, match=f"^{line}"):
        Crafted(**bad)
