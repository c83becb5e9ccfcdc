"""Threshold on the loss of one model.

S. Yeom, I. Giacomelli, M. Fredrikson, S. Jha, "Privacy Risk in Machine Learning: Analyzing the
Connection to Overfitting", IEEE CSF 2018, arXiv 1709.01604, Adversary 2.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Attack, Knowledge, View
from fedmia.attacks.series import over_rounds
from fedmia.errors import expect
from fedmia.records import Capability, Examples


@dataclass(frozen=True)
class YeomLoss(Attack):
    """Score ``−ℓ(w; x, y)``: a record that the model fits well is called a member.

    Parameters
    ----------
    model
        ``global``: the last global model seen, the same score for every target;
        ``local``: the target's own last model.
    """

    model: str = "global"

    needs = frozenset({Capability.GLOBAL_MODEL})
    reference = "yeom2018privacy"

    def __post_init__(self) -> None:
        expect(self.model in ("global", "local"), "model", self.model, "global or local")

    def requirements(self) -> frozenset[Capability]:
        """Return what the chosen model needs."""
        return self.needs if self.model == "global" else frozenset({Capability.CLIENT_UPDATES})

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the negative loss, shape (n,)."""
        if self.model == "global":
            return np.asarray(-view.signals.loss_global[-1], dtype=np.float64)
        return np.asarray(-over_rounds(view, view.signals.loss_local, target)[-1], dtype=np.float64)
