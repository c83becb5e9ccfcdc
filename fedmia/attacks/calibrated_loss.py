"""Difficulty calibration: the loss, less what models trained without the record make of it.

L. Watson, C. Guo, G. Cormode, A. Sablayrolles, "On the Importance of Difficulty Calibration in
Membership Inference Attacks", ICLR 2022, arXiv 2111.08440.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedmia.attacks.base import Knowledge, NotApplicableError, View
from fedmia.attacks.one_model import OneModelAttack
from fedmia.attacks.rounds import rounds_of
from fedmia.errors import expect
from fedmia.knowledge import References
from fedmia.records import Capability, Examples
from fedmia.signals.forward import loss_and_gap


@dataclass(frozen=True)
class CalibratedLoss(OneModelAttack):
    """Score ``s(w; x, y) − (1/m) Σ_i s(w_i; x, y)`` with m reference models trained without x.

    The references are trained by the federation's recipe on auxiliary records alone (offline).

    Parameters
    ----------
    measure
        ``s``; ``loss``: ``−ℓ``, the paper's; ``logit_gap``: ``φ = z_y − logsumexp_{j≠y} z_j``.
    model
        ``global``: the last global model seen, against the global models of shadow federations;
        ``local``: the target's own last model, against shadow clients that start from the same
        global model and hold as many records.
    """

    measure: str = "loss"
    model: str = "global"

    needs = frozenset({Capability.OUTPUTS, Capability.SHADOWS})
    reference = "watson2022importance"
    cheap = False

    def __post_init__(self) -> None:
        expect(self.measure in ("loss", "logit_gap"), "measure", self.measure, "loss or logit_gap")
        super().__post_init__()

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the calibrated score, shape (n,)."""
        if knowledge.shadows is None:
            raise NotApplicableError("needs shadow training")
        signals = view.signals
        if self.model == "global":
            loss, gap = signals.loss_global[-1], signals.logit_gap_global[-1]
            references = knowledge.shadows.federations()
        else:
            k, rows = rounds_of(view, target)
            t = int(rows[-1])
            loss, gap = signals.loss_local[t, k], signals.logit_gap_local[t, k]
            seen = view.transcript[t]
            (size,) = (u.num_examples for u in seen.updates if u.node_id == target)
            references = knowledge.shadows.clients(seen.params, size)
        s = -loss if self.measure == "loss" else gap
        return np.asarray(s, dtype=np.float64) - self._expected(references, candidates)

    def _expected(self, references: References, candidates: Examples) -> NDArray[np.float64]:
        """Return ``(1/m) Σ_i s(w_i; x, y)``, shape (n,)."""
        y = torch.from_numpy(np.array(candidates.y))
        total = np.zeros(len(candidates))
        for logits in references.logits(candidates):
            loss, gap = loss_and_gap(torch.from_numpy(np.array(logits)), y)
            total += -loss.numpy() if self.measure == "loss" else gap.numpy()
        return total / len(references)
