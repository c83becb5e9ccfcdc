"""Modified entropy: an entropy that also says whether the prediction is right.

L. Song, P. Mittal, "Systematic Evaluation of Privacy Risks of Machine Learning Models", USENIX
Security 2021, arXiv 2003.10595, Eq. 8 and the class-dependent thresholds of its attack.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Knowledge, NotApplicableError, View
from fedmia.attacks.one_model import OneModelAttack
from fedmia.errors import expect
from fedmia.records import Capability, Examples
from fedmia.signals import Signals

_ENOUGH = 30


@dataclass(frozen=True)
class ModifiedEntropy(OneModelAttack):
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
        median of them all, and one with none is refused.
    """

    model: str = "global"
    thresholds: str = "none"

    reference = "song2021systematic"

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(
            self.thresholds in ("none", "per_class"),
            "thresholds",
            self.thresholds,
            "none or per_class",
        )

    def requirements(self) -> frozenset[Capability]:
        """Return what the chosen model and thresholds need."""
        also = {Capability.AUXILIARY} if self.thresholds == "per_class" else set()
        return super().requirements() | also

    def check_records(self, auxiliary: Examples, candidates: Examples) -> None:
        """Refuse thresholds for classes of which there is no auxiliary record."""
        missing = np.setdiff1d(candidates.y, auxiliary.y)
        if self.thresholds == "per_class" and len(missing):
            raise NotApplicableError(
                "needs auxiliary records of every class for thresholds=per_class, has none of "
                f"class {', '.join(map(str, missing[:5]))}{', …' if len(missing) > 5 else ''}"
            )

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the score, shape (n,)."""
        mentr = self._mentr(view, view.signals, target)
        if self.thresholds == "none":
            return -mentr
        auxiliary = knowledge.auxiliary
        self.check_records(auxiliary, candidates)
        known = self._mentr(view, view.signals.of(auxiliary), target)
        tau = np.full(knowledge.num_classes, np.median(known))
        for c in np.flatnonzero(np.bincount(auxiliary.y) >= _ENOUGH):
            tau[c] = np.median(known[auxiliary.y == c])
        return np.asarray(tau[candidates.y] - mentr)

    def _mentr(self, view: View, signals: Signals, target: int | None) -> NDArray[np.float64]:
        """Return ``Mentr`` of some records under the chosen model."""
        return self.last(view, target, lambda: signals.mentr_global, lambda: signals.mentr_local)
