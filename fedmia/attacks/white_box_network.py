"""The attack network of Nasr et al.: a network a component, and an encoder that joins them."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss, relu

from fedmia.attacks.networks import Standardise, seeded, train
from fedmia.attacks.white_box import LOG_LOSS, Features, take

EMBEDDING = 4
"""The width of the unsupervised attack's embedding."""

_UNITS = 64
_KERNELS = 16
_TINY = 1e-30


class Gradient(nn.Module):
    """Convolve a layer's gradient with kernels as wide as its input, one slice a round.

    ``g_{oc} = relu(b_c + Σ_{t,i} A_{tic} (∇_W ℓ)_{t,oi})``, then a dense layer. The gradient is
    never written out: ``Σ_i A_{tic} (Σ_p δ_{po} h_{pi}) = Σ_p δ_{po} (Σ_i A_{tic} h_{pi})``.

    Parameters
    ----------
    delta
        Of training records, (n, rounds, positions, outputs); only its shape and size matter.
    inputs
        Likewise, (n, rounds, positions, inputs).
    """

    def __init__(self, delta: Tensor, inputs: Tensor) -> None:
        super().__init__()
        _, rounds, positions, width = inputs.shape
        product = _size(delta) * _size(inputs) * positions**0.5
        self.scale = 1 / max(product, _TINY)
        self.kernels = nn.Parameter(torch.randn(rounds, width, _KERNELS) / (rounds * width) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(_KERNELS))
        self.dense = nn.Sequential(nn.Linear(delta.shape[-1] * _KERNELS, _UNITS), nn.ReLU())

    def convolve(self, delta: Tensor, inputs: Tensor) -> Tensor:
        """Return ``g`` before the rectifier, (n, outputs, kernels)."""
        responses = torch.einsum("ntpi,tic->ntpc", inputs, self.kernels)
        return torch.einsum("ntpo,ntpc->noc", delta * self.scale, responses) + self.bias

    def forward(self, delta: Tensor, inputs: Tensor) -> Tensor:
        """Return (n, 64)."""
        features: Tensor = self.dense(relu(self.convolve(delta, inputs)).flatten(1))
        return features


class Encoder(nn.Module):
    """Join the components of a record's features into (n, 64).

    Parameters
    ----------
    features
        Of training records: they give the shapes and what to standardise by.
    """

    def __init__(self, features: Features) -> None:
        super().__init__()
        self._layers = sum(name.startswith("delta_") for name in features)
        self.gradients = nn.ModuleList(
            Gradient(features[f"delta_{i}"], features[f"input_{i}"]) for i in range(self._layers)
        )
        names = [*(f"activation_{i}" for i in range(self._layers)), "logits", "label", "loss"]
        self.others = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Flatten(),
                    Standardise(features[name].flatten(1)),
                    nn.Linear(features[name][0].numel(), _UNITS),
                    nn.ReLU(),
                )
                for name in names
            }
        )
        width = _UNITS * (self._layers + len(names))
        self.joint = nn.Sequential(nn.Linear(width, _UNITS), nn.ReLU(), nn.Dropout(0.2))

    def forward(self, features: Features) -> Tensor:
        """Return the joint features, (n, 64)."""
        parts = [
            gradient(features[f"delta_{i}"], features[f"input_{i}"])
            for i, gradient in enumerate(self.gradients)
        ]
        parts += [component(features[name]) for name, component in self.others.items()]
        joint: Tensor = self.joint(torch.cat(parts, 1))
        return joint


class Embedding(nn.Module):
    """An encoder's embedding, with variance 1 on features like those given, and a loss.

    The loss is its logarithm, averaged over rounds.
    """

    def __init__(self, encoder: nn.Module, features: Features) -> None:
        super().__init__()
        self.encoder = encoder
        with torch.no_grad():
            self.standardise = Standardise(encoder(features))

    def forward(self, features: Features) -> Tensor:
        """Return (n, 4 + 1), the loss last."""
        loss = features["summary"][..., LOG_LOSS].mean(1, keepdim=True)
        return torch.cat([self.standardise(self.encoder(features)), loss], 1)


def classifier(
    features: Features,
    labels: Tensor,
    rng: np.random.Generator,
    epochs: int,
    learning_rate: float,
) -> nn.Module:
    """Return a network from features to log-odds (n,), trained on features with labels 0 or 1."""
    with seeded(rng):
        network = nn.Sequential(Encoder(features), nn.Linear(_UNITS, 1), nn.Flatten(0))

    def loss(rows: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(network(take(features, rows)), labels[rows])

    train(network, loss, len(labels), rng, epochs, learning_rate)
    return network


def embedding(
    features: Features, rng: np.random.Generator, epochs: int, learning_rate: float
) -> nn.Module:
    """Return an :class:`Embedding` by the encoder of an auto-encoder of the summary."""
    summary = features["summary"].flatten(1)
    goal = Standardise(summary)(summary)
    with seeded(rng):
        encoder = nn.Sequential(Encoder(features), nn.Linear(_UNITS, EMBEDDING))
        decoder = nn.Sequential(
            nn.Linear(EMBEDDING, _UNITS), nn.ReLU(), nn.Linear(_UNITS, goal.shape[1])
        )

    def loss(rows: Tensor) -> Tensor:
        return mse_loss(decoder(encoder(take(features, rows))), goal[rows])

    train(nn.ModuleList([encoder, decoder]), loss, len(goal), rng, epochs, learning_rate, 256)
    return Embedding(encoder, features)


def _size(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
