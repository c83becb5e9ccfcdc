"""Steps draw, clip and add noise as Algorithm 1 of Abadi et al. does, by hand and by Opacus."""

import warnings

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from fedmia.errors import ConfigError
from fedmia.models.logistic import Logistic
from fedmia.models.mlp import MLP
from fedmia.privacy.per_record import ClippedGradient
from fedmia.privacy.private_sgd import PrivateSGD, sampling_rate, steps
from fedmia.privacy.randomness import gaussian_source, uniform_source
from fedmia.training import FlatModel, LocalSGD

CLASSES = 3


def records(n, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(n, 4, generator=rng), torch.randint(CLASSES, (n,), generator=rng)


def fresh(builder=None):
    torch.manual_seed(0)
    return FlatModel((builder or MLP([5]))((4,), CLASSES))


def everybody(n):
    return np.zeros(n)


def nobody(n):
    return np.ones(n) * (1 - 2**-53)


def no_noise(size):
    raise AssertionError("noise was drawn")


@pytest.mark.parametrize(
    ("n", "batch_size", "epochs", "rate", "count"),
    [(20, 5, 5, 0.25, 20), (21, 5, 5, 5 / 21, 25), (3, 5, 2, 1.0, 2), (5, 5, 1, 1.0, 1)],
)
def test_rate_and_steps_follow_from_the_recipe(n, batch_size, epochs, rate, count):
    base = LocalSGD(local_epochs=epochs, batch_size=batch_size)
    assert sampling_rate(base, n) == rate
    assert steps(base, n) == count


def test_steps_without_noise_are_those_of_a_naive_loop():
    base = LocalSGD(local_epochs=2, batch_size=4, lr=0.3, momentum=0.8, weight_decay=0.1)
    clip, (x, y) = 0.2, records(10)
    model, twin = fresh(), fresh()
    PrivateSGD(base, clip, 0.0).train(model, x, y, np.random.default_rng(3).random, no_noise)
    w, velocity, rng = twin.flat, torch.zeros_like(twin.flat), np.random.default_rng(3)
    for _ in range(6):
        total = torch.zeros_like(w)
        for i in np.flatnonzero(rng.random(10) < 0.4):
            twin.differentiate(cross_entropy(twin.module(x[i : i + 1]), y[i : i + 1]))
            total += twin.grad * min(1.0, clip / float(twin.grad.norm()))
        velocity = 0.8 * velocity + total / 4 + 0.1 * w
        w.sub_(0.3 * velocity)
    assert torch.allclose(model.flat, w, atol=1e-5)
    assert (model.flat - fresh().flat).norm() > 0.1


@pytest.mark.parametrize(("n", "expected"), [(5, 5), (3, 3), (2, 2)])
def test_the_denominator_is_the_expected_number_of_records(n, expected):
    base = LocalSGD(local_epochs=1, batch_size=5, lr=1.0, momentum=0.0)
    (x, y), model, twin = records(n), fresh(), fresh()
    PrivateSGD(base, 0.1, 0.0).train(model, x, y, everybody, no_noise)
    with ClippedGradient(twin) as add:
        add(x, y, 0.1)
    assert torch.allclose(model.flat, twin.flat - twin.grad / expected, atol=1e-6)


def test_the_denominator_stays_when_fewer_are_drawn():
    base = LocalSGD(local_epochs=1, batch_size=5, lr=1.0, momentum=0.0)
    (x, y), model, twin = records(10), fresh(), fresh()
    draws = iter([np.where(np.arange(10) == 7, 0.0, 0.9), nobody(10)])
    PrivateSGD(base, 0.1, 0.0).train(model, x, y, lambda n: next(draws), no_noise)
    with ClippedGradient(twin) as add:
        add(x[7:8], y[7:8], 0.1)
    assert torch.allclose(model.flat, twin.flat - twin.grad / 5, atol=1e-6)


def test_steps_in_which_nobody_is_drawn_are_noise_of_the_right_size():
    base = LocalSGD(local_epochs=1, batch_size=5, lr=0.5, momentum=0.0)
    torch.manual_seed(0)
    model = FlatModel(MLP([200, 200])((4,), CLASSES))
    before, (x, y) = model.flat.clone(), records(20)
    noise = gaussian_source(False, 0, "test")
    PrivateSGD(base, clip=3.0, noise_multiplier=2.0).train(model, x, y, nobody, noise)
    moved = (model.flat - before).numpy()
    each = 0.5 * 2.0 * 3.0 / 5  # lr · z · C / expected; four steps
    assert moved.std() == pytest.approx(2 * each, rel=0.02)
    assert moved.mean() == pytest.approx(0, abs=4 * 2 * each / np.sqrt(moved.size))


def test_noise_is_drawn_anew_for_every_step_and_for_all_parameters():
    base = LocalSGD(local_epochs=3, batch_size=5, lr=0.5)
    model, (x, y), sizes = fresh(), records(10), []

    def gaussian(size):
        sizes.append(size)
        return np.zeros(size, np.float32)

    PrivateSGD(base, 1.0, 1.0).train(model, x, y, nobody, gaussian)
    assert sizes == [model.flat.numel()] * 6


def test_each_record_is_drawn_with_the_rate_and_independently(monkeypatch):
    base, n = LocalSGD(local_epochs=100, batch_size=5, lr=1e-9), 20
    x = torch.eye(n)
    drawn = []

    def record(self, some, labels, clip):
        drawn.append(some.sum(0).numpy())

    monkeypatch.setattr(ClippedGradient, "__call__", record)
    torch.manual_seed(0)
    model = FlatModel(Logistic()((n,), CLASSES))
    uniform = uniform_source(False, 0, "draws")
    PrivateSGD(base, 1.0, 0.0).train(model, x, torch.zeros(n, dtype=torch.long), uniform, no_noise)
    table = np.array(drawn)
    assert table.shape == (400, n)
    assert table.mean() == pytest.approx(0.25, abs=4 * np.sqrt(0.1875 / table.size))
    assert np.abs(table.mean(0) - 0.25).max() < 4.5 * np.sqrt(0.1875 / 400)
    # sizes vary as a binomial's do: no fixed batches
    assert table.sum(1).var() == pytest.approx(20 * 0.1875, rel=0.3)


def test_every_record_is_in_every_step_if_a_batch_is_larger_than_all():
    base = LocalSGD(local_epochs=2, batch_size=50, lr=0.1, momentum=0.0)
    model, twin, (x, y) = fresh(), fresh(), records(8)
    uniform = uniform_source(False, 1, "draws")
    PrivateSGD(base, 1e6, 0.0).train(model, x, y, uniform, no_noise)
    base.fit(twin, x, y, np.random.default_rng(0))
    assert torch.allclose(model.flat, twin.flat, atol=1e-5)


def test_a_step_is_opacus_own_on_the_same_records_and_without_noise():
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    base = LocalSGD(local_epochs=1, batch_size=4, lr=0.3, momentum=0.9, weight_decay=0.01)
    (x, y), model = records(8), fresh()
    theirs = GradSampleModule(fresh().module, loss_reduction="mean")
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.3, momentum=0.9, weight_decay=0.01)
    optimizer = DPOptimizer(sgd, noise_multiplier=0.0, max_grad_norm=0.2, expected_batch_size=4)
    rng = np.random.default_rng(5)
    for _ in range(2):
        drawn = torch.from_numpy(np.flatnonzero(rng.random(8) < 0.5))
        assert len(drawn)
        optimizer.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cross_entropy(theirs(x[drawn]), y[drawn]).backward()
        optimizer.step()
    uniform = np.random.default_rng(5).random
    PrivateSGD(base, 0.2, 0.0).train(model, x, y, uniform, no_noise)
    found = torch.cat([p.detach().reshape(-1) for p in theirs.parameters()])
    assert torch.allclose(model.flat, found, atol=1e-5)


@pytest.mark.parametrize(
    ("clip", "z", "line"),
    [
        (0.0, 1.0, r"clip=0\.0: expected more than 0 and finite"),
        (float("inf"), 1.0, "clip=inf: expected more than 0 and finite"),
        (1.0, -1.0, r"noise_multiplier=-1\.0: expected at least 0 and finite"),
    ],
)
def test_values_out_of_range_are_refused(clip, z, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        PrivateSGD(LocalSGD(), clip, z)
