"""Entropy of the prediction, without the label.

L. Song, P. Mittal, "Systematic Evaluation of Privacy Risks of Machine Learning Models", USENIX
Security 2021, arXiv 2003.10595, Section 3 (a metric of earlier work that theirs refines).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Knowledge, View
from fedmia.attacks.one_model import OneModelAttack
from fedmia.records import Examples


@dataclass(frozen=True)
class Entropy(OneModelAttack):
    """Score ``−H(p) = Σ_i p_i log p_i``: a certain prediction is called a member's.

    The label is not looked at, so a record that is confidently misread passes for a member.

    Parameters
    ----------
    model
        ``global``: the last global model seen, the same score for every target;
        ``local``: the target's own last model.
    """

    model: str = "global"

    reference = "song2021systematic"

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the negative entropy, shape (n,), at most 0."""
        seen = view.signals
        return -self.last(view, target, lambda: seen.entropy_global, lambda: seen.entropy_local)
