"""Small networks that learn what honest updates look like, and rebuild others badly.

S. Li, Y. Cheng, W. Wang, Y. Liu, T. Chen, "Learning to Detect Malicious Clients for Robust
Federated Learning", 2020 (arXiv 2002.00211): an encoder-decoder of update features, whose
reconstruction error is held against a threshold. The variational one is D. P. Kingma, M. Welling,
"Auto-Encoding Variational Bayes", ICLR 2014 (arXiv 1312.6114).
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmia.records import Params
from fedmia.seeding import torch_seed

Float64 = NDArray[np.float64]

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class Detector(nn.Module, ABC):
    """An encoder-decoder of rows of z-scores, which it sees as ``arsinh z``.

    So a coordinate counts by its size while it is small and by its logarithm where it is far out:
    one mad feature does not hide the others.
    """

    @abstractmethod
    def rebuilt(self, x: Tensor) -> Tensor:
        """Return what becomes of rows on the way through, (n, f) → (n, f), without noise."""

    @abstractmethod
    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return what training makes small, a scalar; its noise comes from the generator."""

    @torch.no_grad()
    def parts(self, z: Float64) -> Float64:
        """Return the squared error of each entry, (n, f) → (n, f); a row's error is their mean."""
        x = _seen(z)
        return np.asarray(((self.rebuilt(x) - x) ** 2).numpy(), np.float64)

    def errors(self, z: Float64) -> Float64:
        """Return the reconstruction errors of rows, (n, f) → (n,)."""
        return np.asarray(self.parts(z).mean(axis=1))

    def params(self) -> dict[str, NDArray[Any]]:
        """Return a copy of the weights as named arrays."""
        return {name: value.numpy().copy() for name, value in self.state_dict().items()}

    def load(self, params: Params) -> None:
        """Set the weights.

        Raises
        ------
        ValueError
            If a name or a shape is not that of the network, or a value is not finite.
        """
        own = self.state_dict()
        if set(params) != set(own):
            raise ValueError("not the weights of this detector")
        for name, value in params.items():
            if value.shape != tuple(own[name].shape) or not np.isfinite(value).all():
                raise ValueError(f"'{name}' is not as it was sent, or not finite")
        self.load_state_dict({k: torch.tensor(v, dtype=torch.float32) for k, v in params.items()})


class Autoencoder(Detector):
    """Rebuild rows through ``latent`` numbers; the loss is the mean squared error.

    Parameters
    ----------
    features
        f.
    hidden, latent
        Widths of the layer in between and of the narrowest one.
    """

    def __init__(self, features: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.encoder = _perceptron(features, hidden, latent)
        self.decoder = _perceptron(latent, hidden, features)

    def rebuilt(self, x: Tensor) -> Tensor:
        """Return what comes out of the decoder."""
        return torch.as_tensor(self.decoder(self.encoder(x)))

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean squared error."""
        return ((self.rebuilt(x) - x) ** 2).mean()


class VAE(Detector):
    """Rebuild rows from a Gaussian code with unit variance, and keep the code near N(0, 1).

    The loss is ``½‖x − m(z)‖² + KL(N(μ(x), σ²(x)) ‖ N(0, 1))`` with one sample z a row; what is
    rebuilt is m(μ(x)).

    Parameters
    ----------
    features, hidden, latent
        As those of :class:`Autoencoder`.
    """

    def __init__(self, features: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.encoder = _perceptron(features, hidden, 2 * latent)
        self.decoder = _perceptron(latent, hidden, features)

    def rebuilt(self, x: Tensor) -> Tensor:
        """Return the decoded mean of the code."""
        mu, _ = self.encoder(x).chunk(2, dim=1)
        return torch.as_tensor(self.decoder(mu))

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the negative evidence bound, less a constant."""
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        log_var = log_var.clamp(-10, 10)
        noise = torch.randn(mu.shape, generator=generator)
        out = self.decoder(mu + (log_var / 2).exp() * noise)
        divergence = 0.5 * (mu**2 + log_var.exp() - log_var - 1).sum(dim=1)
        return torch.as_tensor((0.5 * ((out - x) ** 2).sum(dim=1) + divergence).mean())


KINDS: dict[str, type[Autoencoder] | type[VAE]] = {"autoencoder": Autoencoder, "vae": VAE}


def untrained(kind: str, features: int, hidden: int, latent: int, seed: int) -> Detector:
    """Return a detector of one of ``KINDS`` whose first weights follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "anomaly detector"))
        return KINDS[kind](features, hidden, latent)


def fit(
    detector: Detector, z: Float64, steps: int, learning_rate: float, rng: np.random.Generator
) -> None:
    """Minimise the loss of rows (n, f) in place, by Adam, with all of them in each step."""
    x = _seen(z)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    weights = list(detector.parameters())
    flat = torch.cat([w.detach().reshape(-1) for w in weights])
    places = torch.split(flat, [w.numel() for w in weights])
    mean, square = torch.zeros_like(flat), torch.zeros_like(flat)
    for w, place in zip(weights, places, strict=True):
        w.data = place.view_as(w)
    # Written out: importing torch.optim's first optimiser takes seconds.
    for step in range(1, steps + 1):
        gradients = torch.autograd.grad(detector.loss(x, generator), weights)
        g = torch.cat([part.reshape(-1) for part in gradients])
        mean.lerp_(g, 1 - _BETA1)
        square.lerp_(g * g, 1 - _BETA2)
        root = (square / (1 - _BETA2**step)).sqrt_().add_(_EPSILON)
        flat.addcdiv_(mean, root, value=-learning_rate / (1 - _BETA1**step))


def _seen(z: Float64) -> Tensor:
    return torch.from_numpy(np.arcsinh(z).astype(np.float32))


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))
