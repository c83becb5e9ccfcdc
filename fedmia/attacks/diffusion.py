"""A denoising diffusion model of what updates say of records that nobody trained on.

J. Ho, A. Jain, P. Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv
2006.11239. Scores at fixed times follow J. Duan, F. Kong, S. Wang, X. Shi, K. Xu, "Are Diffusion
Models Vulnerable to Membership Inference Attacks?", ICML 2023, arXiv 2302.01316, who attack
diffusion models; here one is the attacker.
"""

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor, nn

from fedmia.attacks.generative import Density, Generative, perceptron
from fedmia.errors import expect


@dataclass(frozen=True)
class Diffusion(Generative):
    """Compare signatures with what a small diffusion model denoises them to.

    See :class:`fedmia.attacks.generative.Generative` for the score. With
    ``x_t = cos(πt/2) x + sin(πt/2) ε`` the stand-in for the log density is
    ``−mean_{t, ε} ‖ε − ε_θ(x_t, t, c)‖²`` and the excess is the mean entry of ``x − x̂``, where
    ``x − x̂ = tan(πt/2) (ε_θ(x_t, t, c) − ε)`` is the denoising error with its sign, averaged over
    the same times t and noise ε, which all records and clients share.

    Parameters
    ----------
    calibration
        ``clients``: excess over denoised signatures, less that of the other clients;
        ``shadow``: difference of denoising errors to a model of members of shadow federations.
    blocks
        Into how many parts the rounds are divided; a signature has three entries a part.
    width
        Of the three hidden layers.
    steps
        Of training, with 256 signatures each.
    times
        How many times t, spread evenly over (0, 1).
    samples
        How many noises ε at each time.
    """

    times: int = 8
    samples: int = 4

    reference = "ho2020denoising"

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.times >= 1, "times", self.times, "at least 1")
        expect(self.samples >= 1, "samples", self.samples, "at least 1")

    def density(self, entries: int, known: int, generator: torch.Generator) -> Density:
        """Return an untrained denoiser."""
        return Denoiser(entries, known, self, generator)


class Denoiser(nn.Module):
    """``ε_θ(x_t, t, c)``."""

    def __init__(
        self, entries: int, known: int, settings: Diffusion, generator: torch.Generator
    ) -> None:
        super().__init__()
        hidden = (settings.width,) * 3
        self.network = perceptron((entries + known + 3, *hidden, entries), generator)
        self.times = (torch.arange(settings.times) + 0.5) / settings.times
        self.epsilon = torch.randn(settings.samples, entries, generator=generator)

    def loss(self, x: Tensor, c: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``E ‖ε_θ − ε‖²`` with one time and one noise a record."""
        t = torch.rand(len(x), 1, generator=generator)
        epsilon = torch.randn(x.shape, generator=generator)
        return (self._error(x, c, t, epsilon) ** 2).sum(dim=-1).mean()

    def log_density(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the negative denoising error at the fixed times and noises, (n,)."""
        total = torch.zeros(len(x))
        for t in self.times:
            for epsilon in self.epsilon:
                error = self._error(x, c, t.expand(len(x), 1), epsilon.expand_as(x))
                total -= (error**2).sum(dim=-1)
        return total / (len(self.times) * len(self.epsilon))

    def excess(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the mean entry of ``x − x̂`` at the fixed times and noises, (n,)."""
        total = torch.zeros(len(x))
        for t in self.times:
            for epsilon in self.epsilon:
                error = self._error(x, c, t.expand(len(x), 1), epsilon.expand_as(x))
                total += torch.tan(pi / 2 * t) * error.mean(dim=-1)
        return total / (len(self.times) * len(self.epsilon))

    def _error(self, x: Tensor, c: Tensor, t: Tensor, epsilon: Tensor) -> Tensor:
        """Return ``ε_θ(x_t, t, c) − ε`` at times (n, 1), (n, d)."""
        signal, noise = torch.cos(pi / 2 * t), torch.sin(pi / 2 * t)
        x_t = signal * x + noise * epsilon
        predicted: Tensor = self.network(torch.cat([x_t, c, t, signal, noise], dim=-1))
        return predicted - epsilon
