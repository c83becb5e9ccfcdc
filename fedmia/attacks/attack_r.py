"""Attack R: each record has its own threshold, a quantile of its loss under reference models.

J. Ye, A. Maddi, S. K. Murakonda, V. Bindschaedler, R. Shokri, "Enhanced Membership Inference
Attacks against Machine Learning Models", CCS 2022, arXiv 2111.09679.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from fedmia.attacks.base import Knowledge, NotApplicableError, View
from fedmia.attacks.reference_models import Panel, ReferenceAttack
from fedmia.errors import expect
from fedmia.records import Examples


@dataclass(frozen=True)
class AttackR(ReferenceAttack):
    """Score ``Pr_θ'[ℓ(θ'; x, y) > ℓ(θ; x, y)]`` over reference models θ' without the record.

    The share of S reference models takes S + 1 values at most. It is therefore smoothed with a
    Gaussian kernel: ``1/S Σ_s Φ((φ_θ − φ_s) / h)`` in the logit gap φ, whose order is that of the
    loss (``ℓ = log(1 + e^{−φ})``), with ``h = bandwidth · σ · S^(−1/5)`` and σ the scatter of a
    record's values around their mean, pooled over the records. As h goes to 0 this is the share
    itself, ties counted half.

    Parameters
    ----------
    mode, model, rounds
        As in :class:`ReferenceAttack`; there is no online mode.
    bandwidth
        Of the kernel, 1.06 by Silverman's rule; 0 counts without smoothing.
    """

    mode: str = "offline"
    model: str = "global"
    rounds: str = "all"
    bandwidth: float = 1.06

    needs = frozenset()
    reference = "ye2022enhanced"

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.bandwidth >= 0, "bandwidth", self.bandwidth, "at least 0")

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the smoothed share, shape (n,), in [0, 1]."""
        least = 2 if self.bandwidth > 0 else 1
        panels = self.panels(view, target, view.signals, candidates, knowledge, least)
        return np.asarray(np.mean([self._share(p) for p in panels], axis=0), dtype=np.float64)

    def _share(self, panel: Panel) -> NDArray[np.float64]:
        out = ~panel.held
        count = out.sum(axis=0)
        if not count.all():
            raise NotApplicableError("needs a reference model without the record for each")
        above = panel.gap - panel.gaps
        share = (np.sign(above) + 1) / 2
        mean = np.where(out, panel.gaps, 0).sum(axis=0) / count
        square = np.where(out, (panel.gaps - mean) ** 2, 0).sum()
        h = self.bandwidth * np.sqrt(square / max((count - 1).sum(), 1)) * count**-0.2
        if self.bandwidth > 0 and square > 0:
            share = ndtr(above / h)
        return np.asarray(np.where(out, share, 0).sum(axis=0) / count, dtype=np.float64)
