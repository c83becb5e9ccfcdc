"""MemGuard: noise on the confidence scores that takes a membership classifier to its boundary.

J. Jia, A. Salem, M. Backes, Y. Zhang, N. Z. Gong, "MemGuard: Defending against Black-Box Membership
Inference Attacks via Adversarial Examples", ACM CCS 2019, arXiv 1909.10594, Section 4.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from fedmia.attacks.networks import seeded, train
from fedmia.errors import expect
from fedmia.records import Examples
from fedmia.releases.base import Owner, Release
from fedmia.releases.coins import coins
from fedmia.seeding import generator, torch_seed
from fedmia.signals.released import Guard

_C2 = 10.0
_C3, _C3_LAST = 0.1, 1e5
_BETA = 0.1
_ITERATIONS = 300
_CLOSE = 1e-5
_CHUNK = 512


@dataclass(frozen=True)
class MemGuard(Release):
    """Show ``s + r`` with probability p and else ``s = softmax(z)``; the prediction never changes.

    ``g = σ(h)`` is the owner's own classifier of members, a network on the sorted scores that is
    trained on the members and as many other records. Phase I (Algorithm 1) searches the noise
    ``r = softmax(z + e) − s`` with ``L = |h(softmax(z + e))| + c₂ ReLU(max_{j≠l} (z_j + e_j) −
    (z_l + e_l)) + c₃ ‖r‖₁`` by steps ``e ← e − β ∇L/‖∇L‖₂`` until h has changed its sign and the
    prediction l is what it was, with c₃ = 0.1, 1, 10, … as long as that succeeds; c₂ = 10, β = 0.1
    and at most 300 iterations, as in the authors' code. Phase II: ``p = 0`` if ``|g(s) − ½| ≤
    |g(s + r) − ½|``, else ``min(ε / ‖r‖₁, 1)``, so that the expected distortion is at most ε. The
    coin is a keyed hash of the record: the same record gets the same answer at every query.

    Parameters
    ----------
    budget
        ε, of the expected L1 distortion of a record's scores; at 2 it binds nobody.
    hidden
        Widths of the classifier's hidden layers.
    epochs, learning_rate
        Of its training by AdamW.
    """

    budget: float = 1.0
    hidden: Sequence[int] = field(default_factory=lambda: [256, 128, 64])
    epochs: int = 100
    learning_rate: float = 1e-3

    others_needed = 20

    def __post_init__(self) -> None:
        expect(0 <= self.budget <= 2, "budget", self.budget, "in [0, 2]")
        widths, allowed = list(self.hidden), "one or more positive integers"
        expect(bool(widths) and all(w > 0 for w in widths), "hidden", widths, allowed)
        expect(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        rate = self.learning_rate
        expect(0 < rate < math.inf, "learning_rate", rate, "more than 0 and finite")

    def guard(self, owner: Owner) -> Guard:
        """Return the mechanism; the classifier is trained once."""
        h = self._classifier(owner)
        key = torch_seed(owner.seed, "memguard coins")

        def shown(x: Tensor, logits: Tensor) -> Tensor:
            e, p = self.mechanism(h, logits)
            add = torch.from_numpy(coins(key, x)) < p
            return torch.where(add[:, None], logits + e, logits)

        return shown

    def mechanism(self, h: nn.Module, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise in the logits, (n, classes), and the probability of adding it, (n,).

        Parameters
        ----------
        h
            From sorted scores (n, classes) to the log-odds of membership, (n,).
        logits
            True ones, (n, classes).
        """
        z = logits.detach()
        e = _representative(h, z)
        with torch.no_grad():
            before, after = _off(_odds(h, z)), _off(_odds(h, z + e))
            distortion = (_scores(z + e) - _scores(z)).abs().sum(1)
        p = (self.budget / distortion.clamp(min=1e-300)).clamp(max=1.0)
        return e, torch.where(before <= after, torch.zeros_like(p), p)

    def _classifier(self, owner: Owner) -> nn.Module:
        rng = generator(owner.seed, "memguard")
        sides = [_sorted_scores(owner.model, records) for records in (owner.members, owner.others)]
        size = min(map(len, sides))
        rows = torch.cat([side[rng.choice(len(side), size, replace=False)] for side in sides])
        labels = torch.cat([torch.ones(size), torch.zeros(size)])
        with seeded(rng):
            network = _network(rows.shape[1], self.hidden)
        train(
            network,
            lambda batch: binary_cross_entropy_with_logits(network(rows[batch]), labels[batch]),
            len(rows),
            rng,
            self.epochs,
            self.learning_rate,
        )
        return network.requires_grad_(False)


def _network(width: int, hidden: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU()]
        width = units
    return nn.Sequential(*layers, nn.Linear(width, 1), nn.Flatten(0))


def _representative(h: nn.Module, z: Tensor) -> Tensor:
    """Return the noise of phase I in the logits, (n, classes); 0 where none is found."""
    best = torch.zeros_like(z)
    with torch.no_grad():
        rows = torch.nonzero(_off(_odds(h, z)) > _CLOSE).squeeze(1)
    c3 = _C3
    while len(rows) and c3 <= _C3_LAST:
        e, found = _descend(h, z[rows], c3)
        rows = rows[found]
        best[rows] = e[found]
        c3 *= 10
    return best


def _descend(h: nn.Module, z: Tensor, c3: float) -> tuple[Tensor, Tensor]:
    """Return the noise that one weight of the distortion leads to, and of which rows it serves."""
    e, label = torch.zeros_like(z), z.argmax(1)
    with torch.no_grad():
        sign, scores = torch.sign(_odds(h, z)), z.softmax(1)
    found = torch.zeros(len(z), dtype=torch.bool)
    left = torch.arange(len(z))
    for _ in range(1, _ITERATIONS):
        u = _gradient(h, z[left] + e[left], label[left], scores[left], c3)
        e[left] -= _BETA * u / u.norm(dim=1, keepdim=True).clamp(min=1e-30)
        with torch.no_grad():
            now = z[left] + e[left]
            done = (now.argmax(1) == label[left]) & (_odds(h, now) * sign[left] <= 0)
        found[left[done]] = True
        left = left[~done]
        if not len(left):
            break
    return e, found


def _gradient(h: nn.Module, now: Tensor, label: Tensor, scores: Tensor, c3: float) -> Tensor:
    """Return the gradient of L in e at ``z + e``, (n, classes)."""
    with torch.enable_grad():
        now = now.requires_grad_()
        others = now.scatter(1, label[:, None], -torch.inf)
        behind = torch.relu(others.amax(1) - now.gather(1, label[:, None]).squeeze(1))
        moved = (now.softmax(1) - scores).abs().sum(1)
        loss = _odds(h, now).abs() + _C2 * behind + c3 * moved
        (gradient,) = torch.autograd.grad(loss.sum(), now)
    return gradient


def _odds(h: nn.Module, z: Tensor) -> Tensor:
    """Return the log-odds ``h`` of the scores of logits, (n,)."""
    found: Tensor = h(z.softmax(1).sort(1).values)
    return found


def _off(odds: Tensor) -> Tensor:
    """Return ``|g − ½|``."""
    return (odds.sigmoid() - 0.5).abs()


def _scores(z: Tensor) -> Tensor:
    return z.double().softmax(1)


@torch.no_grad()
def _sorted_scores(model: nn.Module, records: Examples) -> Tensor:
    x = torch.from_numpy(np.array(records.x))
    parts = [model(x[i : i + _CHUNK]).softmax(1) for i in range(0, len(x), _CHUNK)]
    return torch.cat(parts).sort(1).values
