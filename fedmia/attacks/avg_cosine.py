"""Mean cosine between a client's update and a record's gradient.

J. Li, N. Li, B. Ribeiro, "Effective Passive Membership Inference Attacks in Federated Learning
Against Overparameterized Models", ICLR 2023; averaged over rounds as "Avg-Cosine" in G. Zhu et
al., "FedMIA", CVPR 2025, arXiv 2402.06289, Table 1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Attack, Knowledge, View
from fedmia.attacks.series import over_rounds
from fedmia.records import Capability, Examples


@dataclass(frozen=True)
class AvgCosine(Attack):
    """Score ``(1/T) Σ_t cos(u_k^t, ∇ℓ(w^t; x, y))`` with ``u_k^t = w^t − w_k^t``."""

    needs = frozenset({Capability.CLIENT_UPDATES, Capability.MANY_ROUNDS})
    reference = "li2023effective"

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the mean cosine, shape (n,), in [−1, 1]."""
        return np.asarray(over_rounds(view, view.signals.cosine, target).mean(axis=0))
