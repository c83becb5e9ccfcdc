"""SGD with differential privacy for records: sampled, clipped, noised steps.

M. Abadi, A. Chu, I. Goodfellow, H. B. McMahan, I. Mironov, K. Talwar, L. Zhang, *Deep Learning with
Differential Privacy*, CCS 2016 (arXiv 1607.00133), Algorithm 1: every step draws each record with
probability q and moves by

    g = (Σ_{i drawn} ∇ℓ_i · min(1, C/‖∇ℓ_i‖) + N(0, z²C²)) / (q n)

The denominator is the expected number of records, not the number drawn. Momentum and weight decay
work on g and cost nothing more. A step in which nobody is drawn is made of noise alone.

Noise in double precision, the secure one, is added on a lattice (:mod:`fedmia.privacy.lattice`),
and gradients are clipped to so much less. The gradients are summed in the model's own precision.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedmia.errors import expect
from fedmia.privacy.lattice import margin, noised
from fedmia.privacy.per_record import ClippedGradient
from fedmia.privacy.randomness import Gaussian, Uniform
from fedmia.training import FlatModel, LocalSGD


@dataclass(frozen=True)
class PrivateSGD:
    """The steps of a :class:`LocalSGD` made private.

    Parameters
    ----------
    base
        The recipe: as many steps, of its batch size in expectation.
    clip
        C, of a record's gradient in L2 norm.
    noise_multiplier
        z, the noise's standard deviation over C; 0 for none.

    Raises
    ------
    ConfigError
        If the clip is not above 0 and finite, or the noise below 0.
    """

    base: LocalSGD
    clip: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        expect(0 < self.clip < math.inf, "clip", self.clip, "more than 0 and finite")
        z = self.noise_multiplier
        expect(0 <= z < math.inf, "noise_multiplier", z, "at least 0 and finite")

    def train(
        self, model: FlatModel, x: Tensor, y: Tensor, uniform: Uniform, gaussian: Gaussian
    ) -> None:
        """Train in place.

        Parameters
        ----------
        model
            Trained from its present parameters.
        x, y
            Features (n, *input_shape) and labels (n,) on the model's device; n ≥ 1.
        uniform
            Decides who is drawn: a number for each record and step.
        gaussian
            Gives the noise, all parameters' at once; on a lattice if in double precision.
        """
        n = len(y)
        rate, count = sampling_rate(self.base, n), steps(self.base, n)
        flat, grad, momentum = model.flat, model.grad, self.base.momentum
        expected, z = rate * n, self.noise_multiplier
        velocity = torch.zeros_like(flat) if momentum else grad
        model.module.train()
        with ClippedGradient(model) as clipped_gradient:
            for _ in range(count):
                # Sums in place of means: the step length has the denominator.
                noise = gaussian(flat.numel()) if z else None
                exact = noise is not None and noise.dtype == np.float64
                if noise is None or exact:
                    grad.zero_()
                else:
                    fast = torch.from_numpy(noise).to(flat.device, flat.dtype)
                    torch.mul(fast, z * self.clip, out=grad)
                drawn = torch.from_numpy(np.flatnonzero(uniform(n) < rate)).to(x.device)
                less = margin(flat.numel()) if exact else 0.0
                clipped_gradient(x[drawn], y[drawn], self.clip * (1 - less))
                if noise is not None and exact:
                    released = noised(grad.cpu().numpy(), z * noise, self.clip)
                    grad.copy_(torch.from_numpy(released))
                if self.base.weight_decay:
                    grad.add_(flat, alpha=self.base.weight_decay * expected)
                if momentum:
                    torch.add(grad, velocity, alpha=momentum, out=velocity)
                flat.sub_(velocity, alpha=self.base.lr / expected)


def sampling_rate(base: LocalSGD, n: int) -> float:
    """Return q, with which a step draws each of n records."""
    return min(1.0, base.batch_size / n)


def steps(base: LocalSGD, n: int) -> int:
    """Return how many steps a round has at a client with n records."""
    return base.local_epochs * math.ceil(n / base.batch_size)
