"""Mean cosine between what a whole round came to and a record's gradient.

The passive cosine attack of J. Li, N. Li, B. Ribeiro, "Effective Passive Membership Inference
Attacks in Federated Learning Against Overparameterized Models", ICLR 2023, with the sum of all
clients' updates in place of one client's; averaged over rounds as "Avg-Cosine" in G. Zhu et al.,
"FedMIA", CVPR 2025, arXiv 2402.06289, Table 1. It is what secure aggregation leaves of it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Attack, Knowledge, NotApplicableError, View
from fedmia.records import Capability, Examples


@dataclass(frozen=True)
class AggregateCosine(Attack):
    """Score ``(1/T) Σ_t cos(u^t, ∇ℓ(w^t; x, y))`` with ``u^t = w^t − w^{t+1}``.

    The mean is over the rounds of which both models were seen. No single client is meant: the
    score is the same for every target.
    """

    needs = frozenset({Capability.GLOBAL_MODEL, Capability.MANY_ROUNDS})
    reference = "li2023effective"

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the mean cosine, shape (n,), in [−1, 1].

        Raises
        ------
        NotApplicableError
            If no two models were seen of which one came of the other.
        """
        cosine = np.asarray(view.signals.aggregate_cosine, dtype=np.float64)
        seen = ~np.isnan(cosine).any(axis=1)
        if not seen.any():
            raise NotApplicableError("needs a round whose next model was seen")
        return np.asarray(cosine[seen].mean(axis=0))
