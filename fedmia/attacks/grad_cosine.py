"""Cosine between a client's last update and a record's gradient.

J. Li, N. Li, B. Ribeiro, "Effective Passive Membership Inference Attacks in Federated Learning
Against Overparameterized Models", ICLR 2023; the single-round "Grad-Cosine" in G. Zhu et al.,
"FedMIA", CVPR 2025, arXiv 2402.06289, Table 1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Attack, Knowledge, View
from fedmia.attacks.series import over_rounds
from fedmia.records import Capability, Examples


@dataclass(frozen=True)
class GradCosine(Attack):
    """Score ``cos(u_k^t, ∇ℓ(w^t; x, y))`` in the last round t that the target took part in.

    The released code of FedMIA reports the best of all rounds, which it can only pick because it
    knows who the members are; no round is picked here.
    """

    needs = frozenset({Capability.CLIENT_UPDATES})
    reference = "li2023effective"

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the cosine, shape (n,), in [−1, 1]."""
        return np.asarray(over_rounds(view, view.signals.cosine, target)[-1])
