"""Modified entropy: an entropy that also says whether the prediction is right.

L. Song, P. Mittal, "Systematic Evaluation of Privacy Risks of Machine Learning Models", USENIX
Security 2021, arXiv 2003.10595, Eq. 8 and the class-dependent thresholds of its attack.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Attack, Knowledge, View
from fedmia.attacks.series import over_rounds
from fedmia.errors import expect
from fedmia.records import Capability, Examples
from fedmia.signals import Signals

_ENOUGH = 30


@dataclass(frozen=True)
class ModifiedEntropy(Attack):
    """Score ``−Mentr`` or, with a threshold for each class, ``τ_y − Mentr``.

    ``Mentr(p, y) = −(1 − p_y) log p_y − Σ_{i≠y} p_i log(1 − p_i)``. The paper's attack calls a
    record a member if ``Mentr ≤ τ_y`` with ``τ_y`` tuned on shadow models. Here ``τ_y`` is the
    median of the class among the auxiliary records, none of them members, under the same model: it
    needs no shadow model, and places records of easy and hard classes on one scale.

    Parameters
    ----------
    model
        ``global``: the last global model seen, the same score for every target;
        ``local``: the target's own last model.
    thresholds
        ``none``; or ``per_class``, where a class with fewer than 30 auxiliary records gets the
        median of them all.
    """

    model: str = "global"
    thresholds: str = "none"

    needs = frozenset({Capability.GLOBAL_MODEL})
    reference = "song2021systematic"

    def __post_init__(self) -> None:
        expect(self.model in ("global", "local"), "model", self.model, "global or local")
        expect(
            self.thresholds in ("none", "per_class"),
            "thresholds",
            self.thresholds,
            "none or per_class",
        )

    def requirements(self) -> frozenset[Capability]:
        """Return what the chosen model and thresholds need."""
        model = self.needs if self.model == "global" else frozenset({Capability.CLIENT_UPDATES})
        return model | ({Capability.AUXILIARY} if self.thresholds == "per_class" else frozenset())

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the score, shape (n,)."""
        mentr = self._mentr(view, view.signals, target)
        if self.thresholds == "none":
            return -mentr
        auxiliary = knowledge.auxiliary
        known = self._mentr(view, view.signals.of(auxiliary), target)
        tau = np.full(knowledge.num_classes, np.median(known))
        for c in np.flatnonzero(np.bincount(auxiliary.y) >= _ENOUGH):
            tau[c] = np.median(known[auxiliary.y == c])
        return np.asarray(tau[candidates.y] - mentr)

    def _mentr(self, view: View, signals: Signals, target: int | None) -> NDArray[np.float64]:
        """Return ``Mentr`` of some records under the chosen model."""
        if self.model == "global":
            return np.asarray(signals.mentr_global[-1], dtype=np.float64)
        return np.asarray(over_rounds(view, signals.mentr_local, target)[-1])
