"""Difficulty calibration by the other clients of the same round.

L. Watson, C. Guo, G. Cormode, A. Sablayrolles, "On the Importance of Difficulty Calibration in
Membership Inference Attacks", ICLR 2022, arXiv 2111.08440, with the models that a federation's
server is sent anyway in place of reference models.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Attack, Knowledge, NotApplicableError, View
from fedmia.attacks.rounds import check_rounds, chosen, rounds_of
from fedmia.errors import expect
from fedmia.records import Capability, Examples


@dataclass(frozen=True)
class CalibratedLossClients(Attack):
    """Score ``mean_t [ s(w_k^t; x, y) − mean_{j≠k} s(w_j^t; x, y) ]``.

    As FedMIA-I without the variance. Nothing is trained; another client that holds the record
    itself lowers the score.

    Parameters
    ----------
    measure
        ``s``; ``loss``: ``−ℓ``, the paper's; ``logit_gap``: ``φ = z_y − logsumexp_{j≠y} z_j``.
    rounds
        ``mean``: over the rounds that the target shared with others; ``last``: the last of them.
    """

    measure: str = "loss"
    rounds: str = "mean"

    needs = frozenset({Capability.CLIENT_UPDATES, Capability.MANY_CLIENTS})
    reference = "watson2022importance"

    def __post_init__(self) -> None:
        expect(self.measure in ("loss", "logit_gap"), "measure", self.measure, "loss or logit_gap")
        check_rounds(self.rounds)

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the calibrated score, shape (n,)."""
        signals = view.signals
        k, rows = rounds_of(view, target)
        shared = rows[signals.present[rows].sum(axis=1) >= 2]
        if shared.size == 0:
            raise NotApplicableError("needs a round with the target and another client")
        total = np.zeros(len(candidates))
        for t in chosen(shared, self.rounds):
            s = -signals.loss_local[t] if self.measure == "loss" else signals.logit_gap_local[t]
            others = signals.present[t].copy()
            others[k] = False
            total += np.asarray(s[k], dtype=np.float64) - s[others].mean(axis=0)
        return total / len(chosen(shared, self.rounds))
