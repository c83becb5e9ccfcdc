"""FedMIA: judge a client's update by what all other clients' updates say of the same record.

G. Zhu, D. Li, H. Gu, Y. Yao, L. Fan, Y. Han, "FedMIA: An Effective Membership Inference Attack
Exploiting 'All for One' Principle in Federated Learning", CVPR 2025, arXiv 2402.06289v3.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from fedmia.attacks.base import Attack, Knowledge, NotApplicableError, View
from fedmia.attacks.series import column_of
from fedmia.errors import expect
from fedmia.records import Capability, Examples

_VARIANCE_FLOOR = 1e-8
_ALL_WITHIN_3_SIGMA = 10  # nobody is further than √(n − 1) standard deviations from the mean of n
_MEASUREMENTS = ("loss", "logit_gap", "cosine")
_FILTERS = ("three_sigma", "mad", "none")


@dataclass(frozen=True)
class FedMIA(Attack):
    """Score ``Λ̃ = (1/T) Σ_t Φ((M_k^t − μ_out^t) / σ_out^t)`` (Eqs. 8–12).

    ``M_k^t`` measures the record under the target's update of round t; ``μ_out`` and ``σ_out``
    come from the other clients of the same round, who serve as the models that never saw it.
    The candidates are the same in every round (the released code draws new non-members in each,
    which alone creates a high TPR at low FPR).

    A variance below 1e-8 is raised to it, as in the authors' code: Eq. 11 has no floor.

    Parameters
    ----------
    measurement
        ``loss``: FedMIA-I, ``−ℓ(w_k^t; x, y)``; ``cosine``: FedMIA-II,
        ``cos(u_k^t, ∇ℓ(w^t; x, y))`` (Eq. 7); ``logit_gap``: FedMIA-I on
        ``φ = z_y − logsumexp_{j≠y} z_j`` instead of the loss (an extension).
    outlier_filter
        How other clients that hold the record themselves are left out of ``Q_out``:
        ``three_sigma`` drops values above ``μ + 3σ`` (Eqs. 8–9; with the population σ it cannot
        drop anything among fewer than 11 others); ``mad`` drops values more than three robust
        standard deviations above the median (an extension); ``none``.
    """

    measurement: str = "cosine"
    outlier_filter: str = "three_sigma"

    needs = frozenset({Capability.CLIENT_UPDATES, Capability.MANY_ROUNDS, Capability.MANY_CLIENTS})
    reference = "zhu2025fedmia"

    def __post_init__(self) -> None:
        expect(
            self.measurement in _MEASUREMENTS,
            "measurement",
            self.measurement,
            f"one of {', '.join(_MEASUREMENTS)}",
        )
        expect(
            self.outlier_filter in _FILTERS,
            "outlier_filter",
            self.outlier_filter,
            f"one of {', '.join(_FILTERS)}",
        )

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return ``Λ̃``, shape (n,), in [0, 1]."""
        k = column_of(view, target)
        total, rounds = np.zeros(len(candidates)), 0
        for t in np.flatnonzero(view.signals.present[:, k]):
            others = view.signals.present[t].copy()
            others[k] = False
            if others.sum() < 2:
                continue
            M = self._measure(view, int(t))
            mu, v = self._q_out(M[others])
            total += ndtr((M[k] - mu) / np.sqrt(v))
            rounds += 1
        if rounds == 0:
            raise NotApplicableError("needs a round with the target and two other clients")
        return total / rounds

    def _measure(self, view: View, t: int) -> NDArray[np.float64]:
        """Return ``M(I_k^t | x, y)`` of every client in one round, (clients, n)."""
        if self.measurement == "loss":
            return -np.asarray(view.signals.loss_local[t], dtype=np.float64)
        if self.measurement == "logit_gap":
            return np.asarray(view.signals.logit_gap_local[t], dtype=np.float64)
        return np.asarray(view.signals.cosine[t], dtype=np.float64)

    def _q_out(self, M_out: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and variance, each (n,), over the other clients (others, n)."""
        few = self.outlier_filter == "three_sigma" and len(M_out) <= _ALL_WITHIN_3_SIGMA
        if few or self.outlier_filter == "none":
            return M_out.mean(axis=0), np.maximum(M_out.var(axis=0), _VARIANCE_FLOOR)
        if self.outlier_filter == "three_sigma":
            limit = M_out.mean(axis=0) + 3 * M_out.std(axis=0)
        else:
            median = np.median(M_out, axis=0)
            limit = median + 3 * 1.4826 * np.median(np.abs(M_out - median), axis=0)
        # one of ten others can lie at 3σ exactly, where rounding must not decide
        within = (M_out <= limit) | np.isclose(M_out, limit, rtol=1e-9, atol=0)
        kept = np.where(within, M_out, np.nan)
        return np.nanmean(kept, axis=0), np.maximum(np.nanvar(kept, axis=0), _VARIANCE_FLOOR)
