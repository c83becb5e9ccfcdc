"""The denoiser against the closed forms of a normal distribution."""

from math import cos, pi, sin, tan

import numpy as np
import pytest
import torch

from fedmia.attacks.diffusion import Diffusion


def untrained(entries=3, known=2, **settings):
    generator = torch.Generator().manual_seed(0)
    return Diffusion(width=16, **settings).density(entries, known, generator)


class Exact(torch.nn.Module):
    """The best ``ε_θ`` for x ~ N(0, 1): ``E[ε | x_t] = sin(πt/2) x_t``."""

    def forward(self, given):
        return given[:, -1:] * given[:, :3]


def test_scores_of_the_best_denoiser_worked_out_by_hand():
    model = untrained(times=3, samples=2)
    model.network = Exact()
    rng = np.random.default_rng(0)
    x, c = rng.normal(size=(4, 3)), np.zeros((4, 2))

    squares, errors = np.zeros(4), np.zeros(4)
    for t in (1 / 6, 1 / 2, 5 / 6):
        a, s = cos(pi / 2 * t), sin(pi / 2 * t)
        for epsilon in model.epsilon.double().numpy():
            error = a * (s * x - a * epsilon)
            squares += (error**2).sum(axis=1) / 6
            errors += tan(pi / 2 * t) * error.mean(axis=1) / 6

    given = torch.tensor(x).float(), torch.tensor(c).float()
    assert model.log_density(*given).numpy() == pytest.approx(-squares, rel=1e-5, abs=1e-6)
    assert model.excess(*given).numpy() == pytest.approx(errors, rel=1e-5, abs=1e-6)


def test_the_excess_is_how_far_the_record_lies_above_its_denoised_self():
    model = untrained()
    x, c = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), torch.zeros(6, 2)

    with torch.no_grad():
        found, total = model.excess(x, c), torch.zeros(6)
        for t in model.times:
            a, s = torch.cos(pi / 2 * t), torch.sin(pi / 2 * t)
            for epsilon in model.epsilon:
                x_t = a * x + s * epsilon
                time = torch.stack([t, a, s]).expand(6, 3)
                predicted = model.network(torch.cat([x_t, c, time], dim=1))
                total += (x - (x_t - s * predicted) / a).mean(dim=1)

    assert found.numpy() == pytest.approx((total / 32).numpy(), abs=1e-4)


def test_training_finds_what_depends_on_what_was_known_before():
    """x = 2c + noise: what fits scores above what does not, and the excess has its sign."""
    generator = torch.Generator().manual_seed(1)
    model = Diffusion(width=32).density(2, 1, generator)
    c = torch.randn(2000, 1, generator=generator)
    x = 2 * c + 0.5 * torch.randn(2000, 2, generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(250):
        rows = torch.randint(1500, (128,), generator=generator)
        optimizer.zero_grad()
        model.loss(x[rows], c[rows], generator).backward()
        optimizer.step()

    with torch.no_grad():
        x, c = x[1500:], c[1500:]
        for shift in (2.0, -2.0):
            typical = model.log_density(x, c) > model.log_density(x + shift, c)
            assert typical.float().mean() > 0.9
        mean = (x - 2 * c).mean(dim=1)
        assert torch.corrcoef(torch.stack([model.excess(x, c), mean]))[0, 1] > 0.9
        assert (model.excess(x + 2, c) > 0).float().mean() > 0.95
        assert (model.excess(x - 2, c) < 0).float().mean() > 0.95
