"""What one attack is worth on a whole federation, and how sure one run makes it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fedmia.errors import expect
from fedmia.intervals import auc_with_interval, rate_intervals
from fedmia.metrics import achieved_rate, balanced_accuracy, label_matched_auc, ppv
from fedmia.pairs import Pairs, pair
from fedmia.sources import source_accuracy, wilson_interval

PRIORS = (0.01, 0.1, 0.5)
"""Shares of members among those asked about, at which a precision is given."""
PRECISION_FPR = 0.01
"""The nominal false-positive rate of that precision."""


@dataclass(frozen=True)
class Membership:
    """The measures of one attack, and how sure one run makes them.

    Parameters
    ----------
    fprs
        False-positive rates, each in (0, 1], at which the true-positive rate is reported.
    confidence
        Coverage of every interval, in (0, 1).
    null_run
        Whether held-out records stand in for members; read where candidates are drawn.
    bootstrap
        Resamples behind the intervals of the true-positive rates, at least 100.

    Notes
    -----
    The intervals are those of :mod:`fedmia.intervals`. With fewer than 5 targets they say little
    about how targets differ.
    """

    fprs: list[float] = field(default_factory=lambda: [0.1, 0.01, 0.001])
    confidence: float = 0.95
    null_run: bool = False
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
        other clients count in ``other_members`` and ``source_accuracy`` and nowhere else. Rows
        without members have nothing to find and are left out of everything pooled.

        Parameters
        ----------
        scores
            Shape (K, n): target k's score of candidate j.
        owner
            Shape (n,): the row whose client trained on the record, −1 held out, −2 not evaluated.
        labels
            Shape (n,).
        rng
            Draws the halves of the balanced accuracy, the bootstrap and the calibration halves.

        Returns
        -------
        dict
            Plain values for JSON: ``auc``, ``auc_ci``, ``tpr_at_fpr``, ``tpr_ci``,
            ``balanced_accuracy``, ``advantage``, ``auc_label_matched`` (within a target),
            ``other_members`` (``auc``, ``auc_ci``, ``tpr_at_fpr``, or ``None`` without any),
            ``per_target`` (the same three by row) and ``auc_target_mean``; ``achieved_fpr`` and
            ``achieved_tpr`` (:func:`fedmia.metrics.achieved_rate`), ``ppv`` by prior at a nominal
            FPR of 1% so set, ``min_fpr`` (one over the distinct non-members), and
            ``source_accuracy``, ``source_accuracy_ci``, ``source_chance`` (:mod:`fedmia.sources`;
            ``None`` where there is one row). A rate below one over the number of distinct
            non-members is ``None``, never a number.

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
            **self._calibrated(pairs, rng),
            **self._source(scores, owner),
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

    def _calibrated(self, pairs: Pairs, rng: np.random.Generator) -> dict[str, Any]:
        s, m, records = pairs.scores, pairs.members, pairs.records
        *rates, known = (
            achieved_rate(s, m, fpr, rng, records) for fpr in [*self.fprs, PRECISION_FPR]
        )
        least = 1 / pairs.num_nonmembers
        return {
            "achieved_fpr": self._by_fpr([rate and rate[0] for rate in rates]),
            "achieved_tpr": self._by_fpr([rate and rate[1] for rate in rates]),
            # so few records cannot tell a lower rate from the least one that they resolve
            "ppv": {
                f"{prior:g}": known and ppv(known[1], max(known[0], least), prior)
                for prior in PRIORS
            },
            "min_fpr": least,
        }

    def _source(self, scores: ArrayLike, owner: ArrayLike) -> dict[str, Any]:
        rows = np.shape(scores)[0]
        if rows < 2:
            return dict.fromkeys(("source_accuracy", "source_accuracy_ci", "source_chance"))
        value = source_accuracy(scores, owner)
        return {
            "source_accuracy": value,
            "source_accuracy_ci": wilson_interval(
                value, int((np.asarray(owner) >= 0).sum()), self.confidence
            ),
            "source_chance": 1 / rows,
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
