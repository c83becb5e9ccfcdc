"""Confidence in the true label.

N. Carlini, S. Chien, M. Nasr, S. Song, A. Terzis, F. Tramèr, "Membership Inference Attacks From
First Principles", IEEE S&P 2022, arXiv 2112.03570, Eq. 3 (the logit gap).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Knowledge, View
from fedmia.attacks.one_model import OneModelAttack
from fedmia.errors import expect
from fedmia.records import Examples


@dataclass(frozen=True)
class Confidence(OneModelAttack):
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

    reference = "carlini2022membership"

    def __post_init__(self) -> None:
        expect(
            self.measure in ("logit_gap", "confidence"),
            "measure",
            self.measure,
            "logit_gap or confidence",
        )
        super().__post_init__()

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the confidence, shape (n,)."""
        seen = view.signals
        phi = self.last(view, target, lambda: seen.logit_gap_global, lambda: seen.logit_gap_local)
        return phi if self.measure == "logit_gap" else -np.logaddexp(0.0, -phi)
