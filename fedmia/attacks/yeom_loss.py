"""Threshold on the loss of one model.

S. Yeom, I. Giacomelli, M. Fredrikson, S. Jha, "Privacy Risk in Machine Learning: Analyzing the
Connection to Overfitting", IEEE CSF 2018, arXiv 1709.01604, Adversary 2.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Knowledge, View
from fedmia.attacks.one_model import OneModelAttack
from fedmia.records import Examples


@dataclass(frozen=True)
class YeomLoss(OneModelAttack):
    """Score ``−ℓ(w; x, y)``: a record that the model fits well is called a member.

    Parameters
    ----------
    model
        ``global``: the last global model seen, the same score for every target;
        ``local``: the target's own last model.
    """

    model: str = "global"

    reference = "yeom2018privacy"

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the negative loss, shape (n,)."""
        seen = view.signals
        return -self.last(view, target, lambda: seen.loss_global, lambda: seen.loss_local)
