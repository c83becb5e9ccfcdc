"""CS-MIA: an attack network on how confident the models are of a record from round to round.

Y. Gu, Y. Bai, S. Xu, "CS-MIA: Membership inference attack based on prediction confidence series in
federated learning", Journal of Information Security and Applications 67:103201, 2022.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from fedmia.attacks.base import Attack, Knowledge, NotApplicableError, View
from fedmia.attacks.networks import lessons, log_odds, seeded, train
from fedmia.attacks.series import over_rounds, resample
from fedmia.errors import expect
from fedmia.knowledge import Shadows
from fedmia.records import Capability, Examples
from fedmia.seeding import generator

_METRICS = ("mentr", "loss", "logit_gap")
_SMALLEST = 1e-30  # of an entropy, before its logarithm


@dataclass(frozen=True)
class CSMIA(Attack):
    """Score ``f(m^1, …, m^L)``, the log-odds that a network gives a series of confidences.

    ``m^t`` is the modified entropy of the record under the t-th model, L. Song and P. Mittal's
    ``Mentr = −(1−p_y) log p_y − Σ_{i≠y} p_i log(1−p_i)``; small values mean confident and right.
    Series of entropies and losses enter as logarithms. The network is trained on the series of
    shadow federations, of which the adversary knows who held what, and serves all targets. A
    series of another length than L is resampled, linear between neighbouring rounds.

    The passive attack: the active one, in which the server selects the target in every round and
    trains on records of its own to copy its series, is not part of it.

    Parameters
    ----------
    metric
        ``mentr``: the paper's; ``loss``; ``logit_gap``: ``z_y − logsumexp_{j≠y} z_j``.
    model
        ``local``: the target's models ``w_k^t``, as the server sees them; ``global``: the models
        ``w^t`` that every participant is sent, whose members are those of all clients.
    network
        Whether there is a network; else the score is the plain mean of the series, its sign
        such that members score higher, which takes no shadow federations.
    length
        L.
    epochs
        Over the shadow series.
    learning_rate
        Of AdamW.
    """

    metric: str = "mentr"
    model: str = "local"
    network: bool = True
    length: int = 30
    epochs: int = 40
    learning_rate: float = 1e-3

    needs = frozenset({Capability.CLIENT_UPDATES, Capability.MANY_ROUNDS, Capability.SHADOWS})
    reference = "gu2022csmia"
    cheap = False

    def __post_init__(self) -> None:
        expect(self.metric in _METRICS, "metric", self.metric, f"one of {', '.join(_METRICS)}")
        expect(self.model in ("local", "global"), "model", self.model, "local or global")
        expect(self.length >= 1, "length", self.length, "at least 1")
        expect(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        expect(self.learning_rate > 0, "learning_rate", self.learning_rate, "more than 0")

    def requirements(self) -> frozenset[Capability]:
        """Return what the chosen models need, and the recipe where a network is trained."""
        seen = Capability.CLIENT_UPDATES if self.model == "local" else Capability.GLOBAL_MODEL
        taught = {Capability.SHADOWS} if self.network else set()
        return frozenset({seen, Capability.MANY_ROUNDS, *taught})

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the log-odds of membership or the mean confidence, shape (n,)."""
        if not self.network:
            sign = 1 if self.metric == "logit_gap" else -1
            return np.asarray(sign * self._series(view, target).mean(axis=0), dtype=np.float64)
        if knowledge.shadows is None:
            raise NotApplicableError("needs shadow federations")
        network = _trained(self, knowledge.shadows, knowledge.seed)
        with torch.no_grad():
            return np.asarray(network(self.features(view, target)), dtype=np.float64)

    def features(self, view: View, target: int | None) -> Tensor:
        """Return what the network is given, (n, length) float32."""
        series = self._series(view, target)
        if self.metric != "logit_gap":
            series = np.log(np.maximum(series, _SMALLEST))
        return torch.from_numpy(resample(series, self.length).T.astype(np.float32))

    def _series(self, view: View, target: int | None) -> NDArray[np.float64]:
        """Return the metric in the rounds that the target took part in, (rounds, n)."""
        signal = getattr(view.signals, f"{self.metric}_{self.model}")
        if self.model == "global":
            return np.asarray(signal, dtype=np.float64)
        return over_rounds(view, signal, target)


@lru_cache(maxsize=2)
def _trained(attack: CSMIA, shadows: Shadows, seed: int) -> nn.Module:
    """Return the attack network from features (n, L) to log-odds (n,), the same for all targets."""
    rng = generator(seed, "cs_mia")
    parts = [
        (attack.features(lesson.federation.view, lesson.node)[lesson.rows], lesson.labels)
        for lesson in lessons(shadows, attack.model == "local", rng)
    ]
    features = torch.cat([x for x, _ in parts])
    labels = torch.from_numpy(np.concatenate([member for _, member in parts]))
    with seeded(rng):
        network = log_odds((64, 32), features)
    train(
        network,
        lambda rows: binary_cross_entropy_with_logits(network(features[rows]), labels[rows]),
        len(labels),
        rng,
        attack.epochs,
        attack.learning_rate,
    )
    return network
