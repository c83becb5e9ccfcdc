"""What one attack is worth on a whole federation, and how sure one run makes it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fedmia.errors import expect
from fedmia.intervals import auc_with_interval, rate_intervals
from fedmia.metrics import balanced_accuracy, label_matched_auc
from fedmia.pairs import Pairs, pair


@dataclass(frozen=True)
class Membership:
    """The measures of one attack, and how sure one run makes them.

    Parameters
    ----------
    fprs
        False-positive rates, each in (0, 1], at which the true-positive rate is reported.
    confidence
        Coverage of every interval, in (0, 1).
    bootstrap
        Resamples behind the intervals of the true-positive rates, at least 100.

    Notes
    -----
    The intervals are those of :mod:`fedmia.intervals`. With fewer than 5 targets they say little
    about how targets differ.
    """

    fprs: list[float] = field(default_factory=lambda: [0.1, 0.01, 0.001])
    confidence: float = 0.95
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        expect(all(0 < f <= 1 for f in self.fprs), "fprs", self.fprs, "values in (0, 1]")
        expect(0 < self.confidence < 1, "confidence", self.confidence, "in (0, 1)")
        expect(self.bootstrap >= 100, "bootstrap", self.bootstrap, "at least 100")

    def evaluate(
        self,
        scores: ArrayLike,
        owner: ArrayLike,
        labels: ArrayLike,
        rng: np.random.Generator,
    ) -> dict[str, Any]:
        """Measure one attack on all its targets.

        Row k's members are the records it owns, its non-members the held-out ones. Members of
        other clients are compared in ``other_members`` and nowhere else. Rows without members
        have nothing to find and are left out of everything pooled.

        Parameters
        ----------
        scores
            Shape (K, n): target k's score of candidate j.
        owner
            Shape (n,): the row whose client trained on the record, −1 held out, −2 not evaluated.
        labels
            Shape (n,).
        rng
            Draws the halves of the balanced accuracy and the bootstrap.

        Returns
        -------
        dict
            Plain values for JSON: ``auc``, ``auc_ci``, ``tpr_at_fpr``, ``tpr_ci``,
            ``balanced_accuracy``, ``advantage``, ``auc_label_matched`` (within a target),
            ``other_members`` (``auc``, ``auc_ci``, ``tpr_at_fpr``, or ``None`` without any),
            ``per_target`` (the same three by row) and ``auc_target_mean``. A rate below one over
            the number of distinct non-members is ``None``, never a number.

        Raises
        ------
        ValueError
            If shapes disagree, a score is not finite, or members or held-out records are missing.
        """
        pairs = pair(scores, owner, labels)
        others = pair(scores, owner, labels, others=True)
        targets = [self._target(pairs, row) for row in range(np.shape(scores)[0])]
        found = [t["auc"] for t in targets if t["auc"] is not None]
        return {
            **self._measure(pairs, rng),
            "other_members": None if others.members.all() else self._brief(others),
            "per_target": targets,
            "auc_target_mean": float(np.mean(found)),
        }

    def _measure(self, pairs: Pairs, rng: np.random.Generator) -> dict[str, Any]:
        accuracy = balanced_accuracy(pairs.scores, pairs.members, rng, pairs.records)
        intervals = rate_intervals(pairs, self.fprs, self.confidence, self.bootstrap, rng)
        return {
            **self._brief(pairs),
            "tpr_ci": self._by_fpr(intervals),
            "balanced_accuracy": accuracy,
            "advantage": None if accuracy is None else 2 * accuracy - 1,
            "auc_label_matched": label_matched_auc(pairs.scores, pairs.members, pairs.strata),
        }

    def _target(self, pairs: Pairs, row: int) -> dict[str, Any]:
        own = pairs.only(pairs.rows == row)
        if own.members.size:
            return self._brief(own)
        unknown = self._by_fpr([None] * len(self.fprs))
        return {"auc": None, "auc_ci": None, "tpr_at_fpr": unknown}

    def _brief(self, pairs: Pairs) -> dict[str, Any]:
        value, interval = auc_with_interval(pairs, self.confidence)
        rates = self._by_fpr(pairs.rates(self.fprs))
        return {"auc": value, "auc_ci": interval, "tpr_at_fpr": rates}

    def _by_fpr(self, values: Sequence[Any]) -> dict[str, Any]:
        return {f"{fpr:g}": value for fpr, value in zip(self.fprs, values, strict=True)}
