"""Entropy of the prediction, without the label.

L. Song, P. Mittal, "Systematic Evaluation of Privacy Risks of Machine Learning Models", USENIX
Security 2021, arXiv 2003.10595, Section 3 (a metric of earlier work that theirs refines).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Attack, Knowledge, View
from fedmia.attacks.series import over_rounds
from fedmia.errors import expect
from fedmia.records import Capability, Examples


@dataclass(frozen=True)
class Entropy(Attack):
    """Score ``−H(p) = Σ_i p_i log p_i``: a certain prediction is called a member's.

    The label is not looked at, so a record that is confidently misread passes for a member.

    Parameters
    ----------
    model
        ``global``: the last global model seen, the same score for every target;
        ``local``: the target's own last model.
    """

    model: str = "global"

    needs = frozenset({Capability.GLOBAL_MODEL})
    reference = "song2021systematic"

    def __post_init__(self) -> None:
        expect(self.model in ("global", "local"), "model", self.model, "global or local")

    def requirements(self) -> frozenset[Capability]:
        """Return what the chosen model needs."""
        return self.needs if self.model == "global" else frozenset({Capability.CLIENT_UPDATES})

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the negative entropy, shape (n,), at most 0."""
        if self.model == "global":
            return -np.asarray(view.signals.entropy_global[-1], dtype=np.float64)
        return np.asarray(-over_rounds(view, view.signals.entropy_local, target)[-1])
