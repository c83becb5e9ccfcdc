"""Confidence in the true label.

N. Carlini, S. Chien, M. Nasr, S. Song, A. Terzis, F. Tramèr, "Membership Inference Attacks From
First Principles", IEEE S&P 2022, arXiv 2112.03570, Eq. 3 (the logit gap).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Attack, Knowledge, View
from fedmia.attacks.series import over_rounds
from fedmia.errors import expect
from fedmia.records import Capability, Examples


@dataclass(frozen=True)
class Confidence(Attack):
    """Score ``φ = log(p_y / (1 − p_y)) = z_y − logsumexp_{j≠y} z_j``, or ``log p_y``.

    ``φ``, ``p_y`` and Yeom's ``−ℓ = log p_y`` put the records of one model in the same order, so
    their ROC curves are one. ``p_y`` itself is not used: from ``φ ≈ 37`` on it is 1 in double
    precision, and records that differ would tie.

    Parameters
    ----------
    measure
        ``logit_gap``: ``φ``; ``confidence``: ``log p_y``.
    model
        ``global``: the last global model seen, the same score for every target;
        ``local``: the target's own last model.
    """

    measure: str = "logit_gap"
    model: str = "global"

    needs = frozenset({Capability.GLOBAL_MODEL})
    reference = "carlini2022membership"

    def __post_init__(self) -> None:
        expect(
            self.measure in ("logit_gap", "confidence"),
            "measure",
            self.measure,
            "logit_gap or confidence",
        )
        expect(self.model in ("global", "local"), "model", self.model, "global or local")

    def requirements(self) -> frozenset[Capability]:
        """Return what the chosen model needs."""
        return self.needs if self.model == "global" else frozenset({Capability.CLIENT_UPDATES})

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the confidence, shape (n,)."""
        if self.model == "global":
            phi = np.asarray(view.signals.logit_gap_global[-1], dtype=np.float64)
        else:
            phi = over_rounds(view, view.signals.logit_gap_local, target)[-1]
        return phi if self.measure == "logit_gap" else -np.logaddexp(0.0, -phi)
