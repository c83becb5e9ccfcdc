"""Train a small attack network: seeded, standardised, with as many members as non-members."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmia.attacks.base import NotApplicableError
from fedmia.knowledge import ShadowFederation, Shadows
from fedmia.records import Examples

_FAR = 5.0
_FLAT = 1e-12
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


def log_odds(hidden: Iterable[int], rows: Tensor, dropout: float = 0.2) -> nn.Sequential:
    """Return a network from features like ``rows`` (n, d), standardised, to log-odds (n,)."""
    layers: list[nn.Module] = [Standardise(rows)]
    width = rows.shape[1]
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU(), nn.Dropout(dropout)]
        width = units
    return nn.Sequential(*layers, nn.Linear(width, 1), nn.Flatten(0))


def by_content(records: Examples) -> NDArray[np.int64]:
    """Return positions (n,) in an order of the records that depends on nothing but themselves."""
    rows = [x.tobytes() + y.tobytes() for x, y in zip(records.x, records.y, strict=True)]
    return np.array(sorted(range(len(rows)), key=rows.__getitem__), dtype=np.int64)


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """Draw torch's randomness from ``rng`` inside the block and leave it untouched outside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**62)))
        yield


def train(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    n: int,
    rng: np.random.Generator,
    epochs: int,
    learning_rate: float,
    batch_size: int = 64,
    weight_decay: float = 1e-4,
) -> None:
    """Minimise the loss of rows by :class:`AdamW` and leave the network in evaluation mode.

    Parameters
    ----------
    network
        What is trained, in place.
    loss
        The mean loss of the rows whose positions (b,) it is given.
    n
        The number of rows.
    rng
        Draws the batches, and seeds dropout.
    """
    network.train()
    optimizer = AdamW(network.parameters(), weight_decay)
    with seeded(rng):
        for _ in range(epochs):
            order = torch.from_numpy(rng.permutation(n))
            for i in range(0, n, batch_size):
                optimizer.step(loss(order[i : i + batch_size]), learning_rate)
    network.eval()


class AdamW:
    """``w ← (1−ηλ)w − η m̂ / (√v̂ + 10⁻⁸)``, ``m̂ = m / (1−β₁ˢ)``, ``v̂ = v / (1−β₂ˢ)`` at step s.

    ``m ← β₁m + (1−β₁)g``, ``v ← β₂v + (1−β₂)g²`` (I. Loshchilov, F. Hutter, "Decoupled Weight
    Decay Regularization", ICLR 2019, arXiv 1711.05101). Written out, because loading
    ``torch.optim`` takes longer than most attack networks; λ = 0 is Adam.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], weight_decay: float = 0.0) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._w = torch.cat([p.detach().flatten() for p in self._parameters])
        self._m, self._v = torch.zeros_like(self._w), torch.zeros_like(self._w)
        self._decay, self._steps = weight_decay, 0
        pieces = torch.split(self._w, [p.numel() for p in self._parameters])
        for p, piece in zip(self._parameters, pieces, strict=True):
            p.data = piece.view_as(p)  # one vector, moved in one go

    def step(self, loss: Tensor, learning_rate: float) -> None:
        """Move the parameters along a loss, η being the learning rate."""
        self._steps += 1
        gradients = torch.autograd.grad(loss, self._parameters)
        g = torch.cat([gradient.flatten() for gradient in gradients])
        self._m.lerp_(g, 1 - _BETA1)
        self._v.lerp_(g.square(), 1 - _BETA2)
        size = (self._v / (1 - _BETA2**self._steps)).sqrt_().add_(_EPSILON)
        self._w.mul_(1 - learning_rate * self._decay)
        self._w.addcdiv_(self._m, size, value=-learning_rate / (1 - _BETA1**self._steps))


class Standardise(nn.Module):
    """Shift and scale features (n, ...) as the rows that it was made from need it.

    What then lies more than five standard deviations off is brought there: networks extrapolate
    badly, and one federation is not quite like another.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        scale = rows.std(0, correction=0)
        self.register_buffer("mean", rows.mean(0))
        self.register_buffer("scale", torch.where(scale > _FLAT, scale, 1.0))

    def forward(self, rows: Tensor) -> Tensor:
        """Return features of the same shape, mean 0 and variance 1 on rows like the first."""
        return ((rows - self.mean) / self.scale).clamp(-_FAR, _FAR)


@dataclass(frozen=True, eq=False)
class Lesson:
    """Positions (m,) among a shadow federation's candidates, half of them members of ``node``.

    ``labels`` (m,) are 1 for members and 0 for others.
    """

    federation: ShadowFederation
    node: int | None
    rows: NDArray[np.int64]
    labels: NDArray[np.float32]


def lessons(shadows: Shadows, per_client: bool, rng: np.random.Generator) -> list[Lesson]:
    """Return what shadow federations teach, with as many non-members as members in each lesson.

    Parameters
    ----------
    shadows
        Their transcripts are taken; who held what there, the adversary drew itself.
    per_client
        A lesson a client, in which records of the other clients are non-members like those that
        nobody held; else one a federation, with the records of all clients as members.
    rng
        Draws the non-members.

    Raises
    ------
    NotApplicableError
        If no shadow federation has both members and non-members.
    """
    found = []
    for federation in shadows.transcripts():
        owner = np.asarray(federation.owner)
        groups = (
            [(node, owner == i) for i, node in enumerate(federation.nodes)]
            if per_client
            else [(None, owner >= 0)]
        )
        for node, inside in groups:
            sides = np.flatnonzero(inside), np.flatnonzero(~inside)
            size = min(map(len, sides))
            if size > 0:
                rows = np.concatenate([rng.choice(side, size, replace=False) for side in sides])
                found.append(Lesson(federation, node, rows, inside[rows].astype(np.float32)))
    if not found:
        raise NotApplicableError("needs shadow federations with members and non-members")
    return found
