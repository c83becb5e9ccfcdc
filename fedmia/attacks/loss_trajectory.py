"""The losses of a record along training, judged by a network that learned from shadow training.

Y. Liu, Z. Zhao, M. Backes, Y. Zhang, "Membership Inference Attacks by Exploiting Loss Trajectory",
CCS 2022, arXiv 2208.14933.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from fedmia.attacks.base import Attack, Knowledge, NotApplicableError, View
from fedmia.attacks.networks import lessons, log_odds, seeded, train
from fedmia.attacks.series import over_rounds, resample
from fedmia.errors import expect
from fedmia.knowledge import Shadows
from fedmia.records import Capability, Examples
from fedmia.seeding import generator

_MEASURES = ("loss", "logit_gap")


@dataclass(frozen=True)
class LossTrajectory(Attack):
    """Score ``f(ℓ(w^1; x, y), …, ℓ(w^T; x, y))``, the log-odds that a network gives a trajectory.

    The paper's adversary sees one trained model and distils it to get a trajectory at all; who
    watches a federation has the real one. The last loss, which the paper appends to it, is its
    end. The network is trained once, on trajectories of shadow federations, with as many members
    as others, and serves all targets. Trajectories are brought to ``points`` losses by linear
    interpolation between neighbouring rounds, first and last kept, whatever their lengths.

    Parameters
    ----------
    model
        ``local``: the target's models ``w_k^t`` in the rounds it took part in; ``global``: the
        models ``w^t``, where members are those of any client.
    measure
        ``loss``: the paper's; ``logit_gap``: ``φ``, whose order is that of the loss
        (``ℓ = log(1 + e^{−φ})``) and which keeps small losses apart.
    points
        Length of what the network is given, at least 2.
    epochs
        Of the training of the network.
    """

    model: str = "local"
    measure: str = "logit_gap"
    points: int = 16
    epochs: int = 40

    needs = frozenset({Capability.CLIENT_UPDATES, Capability.MANY_ROUNDS, Capability.SHADOWS})
    reference = "liu2022trajectory"
    cheap = False

    def __post_init__(self) -> None:
        expect(self.model in ("global", "local"), "model", self.model, "global or local")
        expect(self.measure in _MEASURES, "measure", self.measure, f"one of {', '.join(_MEASURES)}")
        expect(self.points >= 2, "points", self.points, "at least 2")
        expect(self.epochs >= 1, "epochs", self.epochs, "at least 1")

    def requirements(self) -> frozenset[Capability]:
        """Return what the chosen models need."""
        if self.model == "local":
            return self.needs
        return frozenset({Capability.GLOBAL_MODEL, Capability.MANY_ROUNDS, Capability.SHADOWS})

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the log-odds of membership, shape (n,)."""
        seen = self.trajectories(view, target)
        if knowledge.shadows is None:
            raise NotApplicableError("needs shadow federations")
        network = _network(self, knowledge.shadows, knowledge.seed)
        with torch.no_grad():
            return np.asarray(network(torch.from_numpy(seen).float()), dtype=np.float64)

    def trajectories(self, view: View, target: int | None) -> NDArray[np.float64]:
        """Return what the network is given of a target, (n, points)."""
        signal = getattr(view.signals, f"{self.measure}_{self.model}")
        series = signal if self.model == "global" else over_rounds(view, signal, target)
        return resample(np.asarray(series, dtype=np.float64), self.points).T


@lru_cache(maxsize=2)
def _network(attack: LossTrajectory, shadows: Shadows, seed: int) -> nn.Module:
    rng = generator(seed, "loss_trajectory")
    taught = lessons(shadows, attack.model == "local", rng)
    seen = [attack.trajectories(of.federation.view, of.node)[of.rows] for of in taught]
    x = torch.from_numpy(np.concatenate(seen)).float()
    members = torch.from_numpy(np.concatenate([of.labels for of in taught])).float()
    with seeded(rng):
        network = log_odds((64, 32), x)
    train(
        network,
        lambda batch: binary_cross_entropy_with_logits(network(x[batch]), members[batch]),
        len(members),
        rng,
        attack.epochs,
        learning_rate=3e-3,
        batch_size=128,
    )
    return network
