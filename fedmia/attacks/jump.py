"""Jumps in a record's loss when the target takes part: temporal monitoring.

The cumulative sum is that of E. S. Page, "Continuous Inspection Schemes", Biometrika 41, 1954.
That membership shows where participation is sporadic is often said; no paper with this statistic
was found.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Attack, Knowledge, NotApplicableError, View
from fedmia.attacks.series import column_of
from fedmia.errors import expect
from fedmia.records import Capability, Examples

_VARIANCE_FLOOR = 1e-8


@dataclass(frozen=True)
class Jump(Attack):
    """Score how much more the loss drops in the target's rounds than in others.

    ``d_t = ℓ(w^{t+1}; x, y) − ℓ(w^t; x, y)`` is what round t changed, under global models alone.
    A member's loss drops when the target's update enters the average and recovers, or drops less,
    in rounds without it. Updates serve only to tell which rounds these are. Who sent masked words
    under secure aggregation would tell it too, but there no single client is asked about. Whatever
    moves all records in a round alike cancels in the ranking of ``difference`` up to its standard
    error.

    ``difference`` is the two-sample t statistic ``(d̄_without − d̄_with) / (s_p · sqrt(1/a + 1/b))``
    with the pooled variance ``s_p²`` of the a rounds with the target and the b without.

    ``cusum`` is Page's ``max_t S_t``, ``S_t = max(0, S_{t−1} + x_t)`` and
    ``x_t = −(p_t − p̄)(d_t − d̄) / s`` where ``p_t`` is 1 in rounds with the target and else 0: it
    also finds a record that was in the data for a part of the rounds only.

    Variances are at least 1e-8: smaller changes of a loss are rounding.

    Parameters
    ----------
    statistic
        ``difference`` or ``cusum``.
    """

    statistic: str = "difference"

    needs = frozenset({Capability.GLOBAL_MODEL, Capability.MANY_ROUNDS, Capability.CLIENT_UPDATES})
    reference = "page1954continuous"

    def __post_init__(self) -> None:
        expect(
            self.statistic in ("difference", "cusum"),
            "statistic",
            self.statistic,
            "difference or cusum",
        )

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the statistic, shape (n,)."""
        d, p = self._changes(view, target)
        if p.all() or not p.any():
            raise NotApplicableError(
                f"needs rounds with and without the target; it took part in {p.sum()} of {p.size}"
            )
        if p.size < 3:
            raise NotApplicableError("needs the change of the loss in three rounds")
        if self.statistic == "cusum":
            return self._cusum(d, p)
        a, b = d[p], d[~p]
        squares = len(a) * a.var(axis=0) + len(b) * b.var(axis=0)
        s2 = np.maximum(squares / (p.size - 2), _VARIANCE_FLOOR)
        error = np.sqrt(s2 * (1 / len(a) + 1 / len(b)))
        return np.asarray((b.mean(axis=0) - a.mean(axis=0)) / error)

    def _cusum(self, d: NDArray[np.float64], p: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the highest point of the cumulative sum, at least 0."""
        s = np.sqrt(np.maximum(d.var(axis=0), _VARIANCE_FLOOR))
        x = -(p - p.mean())[:, None] * (d - d.mean(axis=0)) / s
        S = highest = np.zeros(d.shape[1])
        for x_t in x:
            S = np.maximum(0, S + x_t)
            highest = np.maximum(highest, S)
        return highest

    def _changes(
        self, view: View, target: int | None
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return ``d`` (rounds, n) and ``p`` (rounds,) where the next global model was seen too."""
        rounds, k = view.signals.rounds_global, column_of(view, target)
        loss = np.asarray(view.signals.loss_global, dtype=np.float64)
        starts = [
            t
            for t, (now, then) in enumerate(pairwise(rounds))
            if now is not None and then in (None, now + 1)
        ]
        return np.diff(loss, axis=0)[starts], view.signals.present[starts, k]
