"""Gradient difference without scaling, as in FedMIA's comparison.

G. Zhu, D. Li, H. Gu, Y. Yao, L. Fan, Y. Han, "FedMIA", CVPR 2025, arXiv 2402.06289, Table 1
("Grad-Diff"), after J. Li, N. Li, B. Ribeiro, ICLR 2023 (see ``grad_diff_scaled``).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Attack, Knowledge, View
from fedmia.attacks.rounds import check_rounds, chosen, rounds_of
from fedmia.records import Capability, Examples


@dataclass(frozen=True)
class GradDiff(Attack):
    """Score ``‖u‖² − ‖u − g‖² = 2⟨u, g⟩ − ‖g‖²`` with ``g = ∇ℓ(w^t; x, y)``, ``u = u_k^t``.

    Taking a member's gradient out of the update shortens it. An update of many small steps is much
    smaller than the sum of its records' gradients, so that ``‖g‖²`` weighs more here than Li et
    al. mean it to.

    Parameters
    ----------
    rounds
        ``last``: the last round that the target took part in; ``mean``: over all of these.
    """

    rounds: str = "last"

    needs = frozenset({Capability.CLIENT_UPDATES})
    reference = "zhu2025fedmia"

    def __post_init__(self) -> None:
        check_rounds(self.rounds)

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the difference, shape (n,)."""
        k, rows = rounds_of(view, target)
        t = chosen(rows, self.rounds)
        inner = np.asarray(view.signals.inner[t, k], dtype=np.float64)
        g = np.asarray(view.signals.grad_norm[t], dtype=np.float64)
        return np.asarray((2 * inner - g**2).mean(axis=0))
