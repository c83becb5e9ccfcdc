"""Source inference: the client whose model fits the record best.

H. Hu, Z. Salcic, L. Sun, G. Dobbie, X. Zhang, "Source Inference Attacks in Federated Learning",
ICDM 2021, arXiv 2109.05659.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Attack, Knowledge, NotApplicableError, View
from fedmia.attacks.rounds import check_rounds, chosen, rounds_of
from fedmia.records import Capability, Examples


@dataclass(frozen=True)
class SourceInference(Attack):
    """Score ``min_{j≠k} ℓ(w_j^t; x, y) − ℓ(w_k^t; x, y)``, the target's margin over the others.

    The paper takes a record known to be someone's and names ``argmin_k ℓ(w_k^t; x, y)``, the most
    probable source where each client's posterior is proportional to ``exp(−ℓ)``. That client, and
    no other, has a positive margin; hence the largest score over targets names the same source,
    while the scores of one target rank records by membership.

    Parameters
    ----------
    rounds
        ``last``: the last round that the target shared with others; ``mean``: over all of these.
    """

    rounds: str = "last"

    needs = frozenset({Capability.CLIENT_UPDATES, Capability.MANY_CLIENTS})
    reference = "hu2021source"

    def __post_init__(self) -> None:
        check_rounds(self.rounds)

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the margin, shape (n,)."""
        present, loss = view.signals.present, view.signals.loss_local
        k, rows = rounds_of(view, target)
        shared = rows[present[rows].sum(axis=1) >= 2]
        if shared.size == 0:
            raise NotApplicableError("needs a round with the target and another client")
        margins = []
        for t in chosen(shared, self.rounds):
            others = present[t].copy()
            others[k] = False
            margins.append(loss[t, others].min(axis=0) - loss[t, k])
        return np.asarray(np.mean(margins, axis=0))
