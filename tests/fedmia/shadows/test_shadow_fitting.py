import logging
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from fedmia.shadows.fitting import Fitter, Job
from fedmia.training import LocalSGD, torch_threads


class Twice(nn.Module):
    """A layer called twice, on vectors and on sequences, and one that is never called."""

    def __init__(self):
        super().__init__()
        self.inner, self.last, self.spare = nn.Linear(6, 6), nn.Linear(6, 3), nn.Linear(2, 2)

    def forward(self, x):
        sequence = torch.stack([x, torch.tanh(self.inner(x))], dim=1)
        return self.last(torch.relu_(self.inner(sequence)).mean(1))


class Attention(nn.Module):
    """Parameters of its own beside a child's, and rows that are looked at one by one."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))
        self.linear = nn.Linear(6, 3, bias=False)

    def forward(self, x):
        return self.linear(torch.tanh(x * self.scale))


def mlp():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 3))


def convolution():
    image = nn.Unflatten(1, (1, 2, 3))
    layers = nn.Conv2d(1, 4, 2), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)
    return nn.Sequential(image, *layers)


def frozen():
    model = mlp()
    model[0].weight.requires_grad_(False)
    model[2].bias.requires_grad_(False)
    return model


def tied():
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    return model


def normalised(**how):
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, **how), nn.ReLU(), nn.Linear(5, 3))


TOGETHER = {
    "mlp": mlp,
    "linear": lambda: nn.Linear(6, 3),
    "convolution": convolution,
    "frozen": frozen,
    "called twice": Twice,
    "own parameters": Attention,
}
ALONE = {
    "batch norm": normalised,
    "batch norm of the batch": lambda: normalised(affine=False, track_running_stats=False),
    "tied": tied,
}
RECIPES = {
    "default": LocalSGD(local_epochs=3, lr=0.1),
    "plain": LocalSGD(local_epochs=2, lr=0.1, momentum=0.0),
    "decay": LocalSGD(local_epochs=2, batch_size=4, lr=0.1, weight_decay=0.1),
    "plain decay": LocalSGD(local_epochs=2, lr=0.1, momentum=0.0, weight_decay=0.1),
    "whole batch": LocalSGD(local_epochs=3, batch_size=100, lr=0.1),
}
SIZES = [7, 3, 7, 1, 7, 12, 3]


def work(model, sizes=SIZES, starts=3):
    """Return the starting weights of a few models and jobs whose records are all different."""
    rng = np.random.default_rng(0)
    torch.manual_seed(1)
    first = {
        k: torch.stack([v + 0.1 * i * torch.randn_like(v) for i in range(starts)])
        if v.is_floating_point()
        else v.expand(starts, *v.shape)
        for k, v in model.state_dict().items()
    }
    jobs = [
        Job(
            i % starts,
            torch.tensor(rng.normal(size=(n, 6)), dtype=torch.float32),
            torch.tensor(rng.integers(3, size=n)),
            np.random.default_rng(i),
            i,
        )
        for i, n in enumerate(sizes)
    ]
    return first, jobs


def fitter(model, recipe=RECIPES["default"]):
    x = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    return Fitter(model, recipe, x, torch.tensor([0, 2]))


def trained(model, recipe, together, **kwargs):
    first, jobs = work(model, **kwargs)
    made = fitter(model, recipe)
    made.together = made.together and together
    results = {}
    for positions, weights in made.fit(first, jobs):
        for j, i in enumerate(positions):
            results[i] = {k: v[j].clone() for k, v in weights.items()}
    assert sorted(results) == list(range(len(jobs)))
    return results


@pytest.mark.parametrize("make", TOGETHER.values(), ids=TOGETHER)
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_models_trained_together_are_those_trained_one_by_one(make, recipe):
    torch.manual_seed(0)
    model = make()
    assert fitter(model, recipe).together

    together, alone = (trained(model, recipe, way) for way in (True, False))

    starts, jobs = work(model)
    for i, job in enumerate(jobs):
        for name, value in alone[i].items():
            torch.testing.assert_close(together[i][name], value, rtol=1e-5, atol=1e-6)
        moved = [k for k, p in model.named_parameters() if p.requires_grad and "spare" not in k]
        assert all(not torch.equal(together[i][k], starts[k][job.row]) for k in moved)


@pytest.mark.parametrize("make", ALONE.values(), ids=ALONE)
def test_other_models_are_trained_one_by_one(make, caplog):
    with caplog.at_level(logging.INFO, "fedmia"):
        made = fitter(make())
    assert not made.together
    assert "one after another" in caplog.text
    assert len(trained(make(), RECIPES["default"], True, sizes=[4, 5])) == 2


def test_another_trainer_is_left_to_itself():
    @dataclass(frozen=True)
    class Halve:
        def fit(self, model, x, y, rng):
            model.flat.mul_(0.5)
            return 0.0

    model = mlp()
    first, jobs = work(model)
    ((positions, weights), *_) = list(fitter(model, Halve()).fit(first, jobs))
    assert positions == [0]
    torch.testing.assert_close(weights["0.weight"][0], first["0.weight"][0] / 2)


def test_threads_share_the_work_and_change_nothing_that_matters():
    torch.manual_seed(0)
    model = mlp()
    alone = trained(model, RECIPES["default"], True, sizes=[5] * 6)
    with torch_threads(2):
        shared = trained(model, RECIPES["default"], True, sizes=[5] * 6)
        assert torch.get_num_threads() == 2
    for i, weights in alone.items():
        for name, value in weights.items():
            torch.testing.assert_close(shared[i][name], value, rtol=1e-5, atol=1e-6)


def test_training_is_repeatable_also_with_random_layers():
    model = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 3))
    assert fitter(model).together
    torch.manual_seed(5)
    before = torch.get_rng_state()
    results = [trained(model, RECIPES["default"], True) for _ in range(2)]
    for i, weights in results[0].items():
        assert all(torch.equal(v, results[1][i][k]) for k, v in weights.items())
    fitter(model)
    torch.manual_seed(5)
    assert torch.equal(before, torch.get_rng_state())
