"""Correlation of updates and gradients over repeated participation.

The premise is that of J. Li, N. Li, B. Ribeiro, "Effective Passive Membership Inference Attacks in
Federated Learning Against Overparameterized Models", ICLR 2023: gradients of different records are
nearly orthogonal. Here it is used round after round; no paper with this statistic was found.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Attack, Knowledge, NotApplicableError, View
from fedmia.attacks.rounds import rounds_of
from fedmia.records import Capability, Examples

_FEWEST = 3


@dataclass(frozen=True)
class UpdateCorrelation(Attack):
    """Score Pearson's correlation over rounds of ``⟨g_t, u_k^t⟩`` and ``‖g_t‖²``.

    ``u_k^t ≈ c Σ_{i∈D_k} ∇ℓ(w^t; x_i, y_i)`` and ``g_t = ∇ℓ(w^t; x, y)``. For a member one term of
    the sum is ``g_t`` itself and the others are nearly orthogonal to it: ``⟨g_t, u_k^t⟩`` is
    ``c‖g_t‖²`` and noise, so that its share of the update grows and shrinks with its gradient. For
    anyone else only noise is left. The correlation needs neither c nor any other number of the
    recipe. It is 0 where a series does not vary.

    What all gradients have in common breaks the premise, and so does the course of training, on
    which both quantities fall for everyone.
    """

    needs = frozenset({Capability.CLIENT_UPDATES, Capability.MANY_ROUNDS})
    reference = "li2023effective"

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the correlation, shape (n,), in [−1, 1]."""
        k, rows = rounds_of(view, target)
        if len(rows) < _FEWEST:
            raise NotApplicableError(
                f"needs {_FEWEST} rounds in which the target took part; it did in {len(rows)}"
            )
        inner = _standardised(view.signals.inner[rows, k])
        square = _standardised(np.asarray(view.signals.grad_norm[rows], dtype=np.float64) ** 2)
        return np.asarray(np.einsum("tn,tn->n", inner, square).clip(-1, 1))


def _standardised(series: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return each column (rounds, n) centred and of length 1, or 0 if it does not vary."""
    z = np.asarray(series, dtype=np.float64)
    z = np.where(np.ptp(z, axis=0) > 0, z - z.mean(axis=0), 0)
    length = np.sqrt((z**2).sum(axis=0))
    return np.asarray(z / np.where(length > 0, length, 1))
