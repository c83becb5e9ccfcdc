"""The autoencoder's densities against closed forms and against loops over its samples."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm

from fedmia.attacks.vae import VAE


def untrained(entries=3, known=2, **settings):
    made = VAE(width=8, **settings).density(entries, known, torch.Generator().manual_seed(0))
    made.epsilon = made.epsilon.double()
    return made.double()


def batch(n=5, entries=3, known=2):
    rng = np.random.default_rng(0)
    return torch.tensor(rng.normal(size=(n, entries))), torch.tensor(rng.normal(size=(n, known)))


@torch.no_grad()
def test_a_decoder_that_ignores_everything_is_a_normal_distribution():
    model, (x, c) = untrained(), batch()
    mean, log_var = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.0, 1.0, -1.0])
    for network in (model.encoder, model.decoder):
        network[-1].weight.zero_()
    model.decoder[-1].bias.copy_(mean)
    model.log_var.copy_(log_var)

    spread = np.exp(log_var.numpy() / 2)
    closed = norm.logpdf(x.numpy(), mean.numpy(), spread).sum(axis=1)
    assert model.log_density(x, c).numpy() == pytest.approx(closed, abs=1e-6)
    excess = (x.numpy().mean(axis=1) - 0.5) / (np.sqrt((spread**2).sum()) / 3)
    assert model.excess(x, c).numpy() == pytest.approx(excess, abs=1e-6)


@torch.no_grad()
def test_the_bound_and_the_excess_agree_with_a_loop_over_samples():
    model, (x, c) = untrained(), batch()
    model.log_var.copy_(torch.tensor([0.3, -0.2, 0.1]))
    spread = np.exp(model.log_var.numpy() / 2)
    bound, excess = [], []
    for record, given in zip(x, c, strict=True):
        mu, log_var = model.encoder(torch.cat([record, given])).chunk(2)
        weights, centres = [], []
        for epsilon in model.epsilon[:, 0]:
            z = mu + torch.exp(log_var / 2) * epsilon
            mean = model.decoder(torch.cat([z, given])).numpy()
            weights.append(
                norm.logpdf(record, mean, spread).sum()
                + norm.logpdf(z).sum()
                - norm.logpdf(z, mu, np.exp(log_var.numpy() / 2)).sum()
            )
            centres.append(model.decoder(torch.cat([epsilon, given])).mean().item())
        bound.append(logsumexp(weights) - np.log(len(weights)))
        deviation = np.sqrt(np.var(centres) + (spread**2).sum() / 9)
        excess.append((record.mean().item() - np.mean(centres)) / deviation)

    assert model.log_density(x, c).numpy() == pytest.approx(bound, abs=1e-6)
    assert model.excess(x, c).numpy() == pytest.approx(excess, abs=1e-6)


@torch.no_grad()
def test_the_bound_of_many_samples_is_above_the_mean_of_their_single_bounds():
    model, (x, c) = untrained(), batch(50)

    single = model._log_weights(x, c, model.epsilon).mean(dim=0)

    assert (model.log_density(x, c) > single).all()


def test_training_finds_what_depends_on_what_was_known_before():
    """x = 2c + noise: the density of a new record is close to the true one."""
    generator = torch.Generator().manual_seed(1)
    model = VAE(width=16).density(1, 1, generator)
    c = torch.randn(2000, 1, generator=generator)
    x = 2 * c + 0.5 * torch.randn(2000, 1, generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(250):
        rows = torch.randint(1500, (128,), generator=generator)
        optimizer.zero_grad()
        model.loss(x[rows], c[rows], generator).backward()
        optimizer.step()

    with torch.no_grad():
        new = slice(1500, 2000)
        truth = norm.logpdf(x[new], 2 * c[new], 0.5).mean()
        assert model.log_density(x[new], c[new]).mean().item() == pytest.approx(truth, abs=0.15)
        z_score = ((x - 2 * c) / 0.5)[new, 0]
        assert torch.corrcoef(torch.stack([model.excess(x[new], c[new]), z_score]))[0, 1] > 0.95
