"""A variational autoencoder of what updates say of records that nobody trained on.

D. P. Kingma, M. Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv 1312.6114; the bound
with several samples is that of Y. Burda, R. Grosse, R. Salakhutdinov, "Importance Weighted
Autoencoders", ICLR 2016, arXiv 1509.00519. That a generative model serves as attacker of a
federation is an idea of this testbed's brief, not of these papers.
"""

from dataclasses import dataclass
from math import log, pi

import torch
from torch import Tensor, nn

from fedmia.attacks.generative import Density, Generative, perceptron
from fedmia.errors import expect


@dataclass(frozen=True)
class VAE(Generative):
    """Compare signatures with those that a conditional variational autoencoder generates.

    See :class:`fedmia.attacks.generative.Generative` for the score. The log density is the bound
    ``log (1/S) Σ_s p(x | z_s, c) p(z_s) / q(z_s | x, c)``, the excess is
    ``(x̄ − E[x̄ | c]) / std[x̄ | c]`` of the mean entry ``x̄`` over S generated signatures.

    Parameters
    ----------
    calibration
        ``clients``: excess over typical signatures, less that of the other clients;
        ``shadow``: log ratio to members of shadow federations.
    blocks
        Into how many parts the rounds are divided; a signature has three entries a part.
    width
        Of the two hidden layers of encoder and decoder.
    steps
        Of training, with 256 signatures each.
    latent
        Entries of z.
    samples
        S.
    """

    latent: int = 2
    samples: int = 16

    reference = "kingma2014auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.latent >= 1, "latent", self.latent, "at least 1")
        expect(self.samples >= 16, "samples", self.samples, "at least 16")

    def density(self, entries: int, known: int, generator: torch.Generator) -> Density:
        """Return an untrained autoencoder."""
        return ConditionalVAE(entries, known, self, generator)


class ConditionalVAE(nn.Module):
    """``p(x | c) = ∫ N(x; m(z, c), diag σ²) N(z; 0, 1) dz`` with a Gaussian encoder.

    σ² does not depend on z or c: variances of their own make the ratio of two densities erratic
    in the tails, where members are.
    """

    def __init__(self, entries: int, known: int, settings: VAE, generator: torch.Generator) -> None:
        super().__init__()
        hidden, latent = (settings.width, settings.width), settings.latent
        self.encoder = perceptron((entries + known, *hidden, 2 * latent), generator)
        self.decoder = perceptron((latent + known, *hidden, entries), generator)
        self.log_var = nn.Parameter(torch.zeros(entries))
        self.epsilon = torch.randn(settings.samples, 1, latent, generator=generator)

    def loss(self, x: Tensor, c: Tensor, generator: torch.Generator) -> Tensor:
        """Return the negative evidence bound with one sample a record."""
        epsilon = torch.randn(1, len(x), self.epsilon.shape[-1], generator=generator)
        return -self._log_weights(x, c, epsilon).mean()

    def log_density(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the importance-weighted bound of ``log p(x | c)``, (n,)."""
        weights = self._log_weights(x, c, self.epsilon)
        return torch.logsumexp(weights, dim=0) - log(len(weights))

    def excess(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the mean entry's distance from generated ones in their deviations, (n,)."""
        centre = self._decode(self.epsilon.expand(-1, len(c), -1), c).mean(dim=-1)
        own = self.log_var.exp().sum() / x.shape[-1] ** 2
        variance = centre.var(dim=0, correction=0) + own
        return (x.mean(dim=-1) - centre.mean(dim=0)) / variance.sqrt()

    def _log_weights(self, x: Tensor, c: Tensor, epsilon: Tensor) -> Tensor:
        """Return ``log p(x | z, c) + log p(z) − log q(z | x, c)``, (samples, n)."""
        encoded: Tensor = self.encoder(torch.cat([x, c], dim=-1))
        mu, log_var = encoded.chunk(2, dim=-1)
        log_var = log_var.clamp(-10, 10)
        z = mu + (log_var / 2).exp() * epsilon
        zero = torch.zeros(())
        log_q = _log_normal(epsilon, zero, zero) - log_var.sum(dim=-1) / 2
        log_p = _log_normal(x, self._decode(z, c), self.log_var)
        return log_p + _log_normal(z, zero, zero) - log_q

    def _decode(self, z: Tensor, c: Tensor) -> Tensor:
        """Return the mean of x, (samples, n, d)."""
        mean: Tensor = self.decoder(torch.cat([z, c.expand(len(z), *c.shape)], dim=-1))
        return mean


def _log_normal(value: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Return the log density of independent normals, summed over the last axis."""
    return -0.5 * ((value - mean) ** 2 / log_var.exp() + log_var + log(2 * pi)).sum(dim=-1)
