"""What a score is worth: pure functions of scores and memberships, **higher score = member**.

The first half works on flat arrays. :class:`Membership` measures a whole federation, where every
held-out record is scored once per target, so that the (target, record) pairs of one record are
not independent; its intervals treat all pairs of a record as one observation.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from scipy.stats import norm
from scipy.stats import t as student

from fedmia.errors import expect

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_ROUNDING = 1e-9  # fpr * N is a whole number in decimals more often than in binary
_CHUNK = 4_000_000  # bootstrap weights held at once
_CURVE = 400
_ENOUGH_TARGETS = 5


def auc(scores: ArrayLike, members: ArrayLike) -> float:
    """Return P(member > non-member) + ½ P(tie), the area under the ROC curve (mid-ranks).

    Parameters
    ----------
    scores, members
        Shape (n,), float and bool.

    Raises
    ------
    ValueError
        If the shapes differ, a score is not finite or one of the two classes is empty.
    """
    s, m = _checked(scores, members)
    below = _twice_below(s[m], s[~m])
    return float(int(below.sum()) / (2 * m.sum() * (~m).sum()))


def roc(scores: ArrayLike, members: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return (fpr, tpr, thresholds), thresholds descending from +inf, one step per distinct score.

    Point i counts what scores at or above ``thresholds[i]``. Raises as :func:`auc`.
    """
    s, m = _checked(scores, members)
    order = np.argsort(-s, kind="stable")
    s, m = s[order], m[order]
    last = np.flatnonzero(np.append(s[1:] != s[:-1], True))
    hits = np.cumsum(m)[last]
    tpr = np.concatenate([[0.0], hits / m.sum()])
    fpr = np.concatenate([[0.0], (last + 1 - hits) / (~m).sum()])
    return fpr, tpr, np.concatenate([[np.inf], s[last]])


def tpr_at_fpr(scores: ArrayLike, members: ArrayLike, fpr: float) -> float | None:
    """Return the largest TPR with at most floor(fpr · N) of the N non-members above threshold.

    The threshold is the next non-member's score; only members strictly above it count.
    ``None`` where N cannot resolve the rate (fpr < 1/N). Raises as :func:`auc`.
    """
    s, m = _checked(scores, members)
    if not _resolved(fpr, int((~m).sum())):
        return None
    return _rate_above(s[m], s[~m], fpr)


def balanced_accuracy(
    scores: ArrayLike,
    members: ArrayLike,
    rng: np.random.Generator,
    records: ArrayLike | None = None,
) -> float | None:
    """Return ½(TPR + TNR) at a threshold that never saw the scores it is judged on.

    Records are halved at random within members and within non-members; the best threshold of each
    half is applied to the other and the two results are averaged: .5 in expectation under the null.

    Parameters
    ----------
    scores, members
        Shape (n,), float and bool.
    rng
        Draws the halves.
    records
        Shape (n,): equal numbers mark scores of the same record, which share a half.

    Returns
    -------
    float or None
        ``None`` where a half lacks members or non-members. Raises as :func:`auc`.
    """
    s, m = _checked(scores, members)
    _, ids = np.unique(np.arange(s.size) if records is None else records, return_inverse=True)
    held = np.bincount(ids, weights=m) > 0
    half = np.zeros(held.size, dtype=np.bool_)
    for group in (np.flatnonzero(held), np.flatnonzero(~held)):
        half[rng.permutation(group)[::2]] = True
    first = half[ids]
    results = []
    for fit, judge in ((first, ~first), (~first, first)):
        if any(part.sum() in (0, part.size) for part in (m[fit], m[judge])):
            return None
        above = s[judge] >= _best_threshold(s[fit], m[fit])
        results.append((above[m[judge]].mean() + 1 - above[~m[judge]].mean()) / 2)
    return float(np.mean(results))


def label_matched_auc(scores: ArrayLike, members: ArrayLike, labels: ArrayLike) -> float | None:
    """Return the AUC in which a member meets only non-members of its own label.

    The mean over members of the share of same-label non-members scored below (ties count half).
    Members whose label no non-member has are left out; ``None`` if none remain. What the label
    alone reveals is worth exactly .5 here. Raises as :func:`auc`.
    """
    s, m = _checked(scores, members)
    _, code = np.unique(labels, return_inverse=True)
    # a score's rank in the order (label, score) is one sortable number for both
    _, rank = np.unique(s, return_inverse=True)
    key = code * (rank.max() + 1) + rank
    start = code[m] * (rank.max() + 1)
    rivals = np.sort(key[~m])
    first, end = np.searchsorted(rivals, start), np.searchsorted(rivals, start + rank.max() + 1)
    below = _twice_below(key[m], rivals) / 2 - first
    met = end > first
    return float(np.mean(below[met] / (end - first)[met])) if met.any() else None


def roc_points(scores: ArrayLike, owner: ArrayLike) -> tuple[Floats, Floats]:
    """Return the pooled (fpr, tpr) of members against held-out records, at most 400 points.

    Points of the exact curve, dense towards FPR 0 on a logarithmic axis and even on a linear one.
    Layout and errors as in :meth:`Membership.evaluate`.
    """
    pairs = _pairs(scores, owner, None)
    fpr, tpr, _ = roc(pairs.scores, pairs.members)
    low = np.geomspace(1 / (~pairs.members).sum(), 1, 3 * _CURVE // 4)
    wanted = np.concatenate([low, np.linspace(0, 1, _CURVE // 4 - 1)])
    kept = np.unique(np.append(0, np.searchsorted(fpr, wanted + _ROUNDING, side="right") - 1))
    return fpr[kept], tpr[kept]


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
    *AUC intervals*: structural components (DeLong et al., Biometrics 1988), summed over all pairs
    of a record (Obuchowski, Biometrics 1997), members centred on their target, plus the variance
    between targets (two-way analysis of variance, never below 0), since a run attacks a sample of
    the clients that could have been; Satterthwaite's degrees of freedom, on the logit scale.

    *TPR intervals*: percentile bootstrap over members and distinct non-members, all pairs of a
    record together; with at least 5 targets a second one over whole targets, stretched for their
    small number (Student's t, K/(K − 1)), and the wider end of the two. With fewer targets both
    kinds of interval say little about how targets differ.

    No interval excludes what n records cannot: with n = min(members, distinct non-members) the
    upper end is at least 1 − a^(1/n) and the lower at most a^(1/n), a = (1 − confidence)/2, the
    exact (Clopper–Pearson) bounds at 0 and n of n. A perfect separation therefore has an interval.
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
            ``other_members`` (the same, or ``None`` without any), ``per_target`` (``auc``,
            ``auc_ci``, ``tpr_at_fpr`` by row) and ``auc_target_mean``. A rate below one over the
            number of distinct non-members is ``None``, never a number.

        Raises
        ------
        ValueError
            If shapes disagree, a score is not finite, or members or held-out records are missing.
        """
        pairs = _pairs(scores, owner, labels)
        others = _pairs(scores, owner, labels, others=True)
        targets = [self._target(pairs, row) for row in range(np.shape(scores)[0])]
        found = [t["auc"] for t in targets if t["auc"] is not None]
        return {
            **self._measure(pairs, rng),
            "other_members": None if others.members.all() else self._measure(others, rng),
            "per_target": targets,
            "auc_target_mean": float(np.mean(found)),
        }

    def _measure(self, pairs: "_Pairs", rng: np.random.Generator) -> dict[str, Any]:
        value, interval = _auc_with_interval(pairs, self.confidence)
        accuracy = balanced_accuracy(pairs.scores, pairs.members, rng, pairs.records)
        return {
            "auc": value,
            "auc_ci": interval,
            "tpr_at_fpr": self._rates(pairs),
            "tpr_ci": self._rate_intervals(pairs, rng),
            "balanced_accuracy": accuracy,
            "advantage": None if accuracy is None else 2 * accuracy - 1,
            "auc_label_matched": label_matched_auc(pairs.scores, pairs.members, pairs.strata),
        }

    def _target(self, pairs: "_Pairs", row: int) -> dict[str, Any]:
        own = pairs.only(pairs.rows == row)
        if not own.members.size:
            return {"auc": None, "auc_ci": None, "tpr_at_fpr": {f"{f:g}": None for f in self.fprs}}
        value, interval = _auc_with_interval(own, self.confidence)
        return {"auc": value, "auc_ci": interval, "tpr_at_fpr": self._rates(own)}

    def _rates(self, pairs: "_Pairs") -> dict[str, float | None]:
        s, m, distinct = pairs.scores, pairs.members, pairs.num_nonmembers
        return {
            f"{fpr:g}": _rate_above(s[m], s[~m], fpr) if _resolved(fpr, distinct) else None
            for fpr in self.fprs
        }

    def _rate_intervals(
        self, pairs: "_Pairs", rng: np.random.Generator
    ) -> dict[str, list[float] | None]:
        fprs = [fpr for fpr in self.fprs if _resolved(fpr, pairs.num_nonmembers)]
        if not fprs:
            return {f"{fpr:g}": None for fpr in self.fprs}
        tail, targets = (1 - self.confidence) / 2, int(pairs.row_index.max()) + 1

        def ends(resample_targets: bool) -> Floats:
            drawn = _bootstrap_rates(
                pairs, fprs, self.bootstrap, rng, resample_targets=resample_targets
            )
            return np.quantile(drawn, [tail, 1 - tail], axis=0)

        low, high = ends(resample_targets=False)
        if targets >= _ENOUGH_TARGETS:
            rates = np.array([self._rates(pairs)[f"{fpr:g}"] for fpr in fprs], dtype=np.float64)
            stretch = student.ppf(1 - tail, targets - 1) / norm.ppf(1 - tail)
            stretch *= np.sqrt(targets / (targets - 1))
            wide = rates + stretch * (ends(resample_targets=True) - rates)
            low, high = np.minimum(low, wide[0]).clip(0, 1), np.maximum(high, wide[1]).clip(0, 1)
        known = {f"{f:g}": pairs.widen(low[i], high[i], tail) for i, f in enumerate(fprs)}
        return {f"{fpr:g}": known.get(f"{fpr:g}") for fpr in self.fprs}


@dataclass(frozen=True)
class _Pairs:
    """All compared (target, record) pairs, flat: each field of shape (p,)."""

    scores: Floats
    members: Bools
    rows: Ints
    records: Ints
    strata: Ints  # (row, label): matching labels across targets would let the prior back in

    @property
    def row_index(self) -> Ints:
        """The rows numbered from 0 without gaps."""
        return np.unique(self.rows, return_inverse=True)[1]

    @property
    def record_index(self) -> Ints:
        """The records numbered from 0 without gaps."""
        return np.unique(self.records, return_inverse=True)[1]

    @property
    def num_nonmembers(self) -> int:
        return int(np.unique(self.records[~self.members]).size)

    def only(self, mask: Bools) -> "_Pairs":
        return _Pairs(
            self.scores[mask],
            self.members[mask],
            self.rows[mask],
            self.records[mask],
            self.strata[mask],
        )

    def widen(self, low: float, high: float, tail: float) -> list[float]:
        """Return the interval, widened to what so few records cannot exclude."""
        exact = tail ** (1 / min(int(self.members.sum()), self.num_nonmembers))
        return [float(min(low, exact)), float(max(high, 1 - exact))]


def _pairs(
    scores: ArrayLike, owner: ArrayLike, labels: ArrayLike | None, *, others: bool = False
) -> _Pairs:
    s, own = np.asarray(scores, dtype=np.float64), np.asarray(owner)
    label = np.zeros(own.shape, dtype=np.int64) if labels is None else np.asarray(labels)
    if s.ndim != 2 or own.shape != s.shape[1:] or label.shape != own.shape:
        raise ValueError(
            f"shapes scores={s.shape}, owner={own.shape}, labels={label.shape}: "
            "expected (K, n), (n,), (n,)"
        )
    if own.size and not -2 <= own.min() <= own.max() < len(s):
        raise ValueError(f"owner spans [{own.min()}, {own.max()}]: expected [-2, {len(s) - 1}]")
    if not np.isfinite(s).all():
        row, record = np.argwhere(~np.isfinite(s))[0]
        raise ValueError(f"scores[{row}, {record}] is {s[row, record]}: expected a finite score")
    positive = own == np.arange(len(s))[:, None]
    negative = ((own >= 0) & ~positive if others else own == -1) & positive.any(axis=1)[:, None]
    if not positive.any() or not (others or negative.any()):
        raise ValueError(
            f"{positive.sum()} members and {(own == -1).sum()} held-out non-members: "
            "expected at least one of each"
        )
    rows, records = np.nonzero(positive | negative)
    _, code = np.unique(label, return_inverse=True)
    strata = rows * (code.max() + 1) + code[records]
    return _Pairs(s[rows, records], positive[rows, records], rows, records, strata)


def _checked(scores: ArrayLike, members: ArrayLike) -> tuple[Floats, Bools]:
    s, m = np.asarray(scores, dtype=np.float64), np.asarray(members, dtype=np.bool_)
    if s.ndim != 1 or s.shape != m.shape:
        raise ValueError(f"shapes scores={s.shape}, members={m.shape}: expected (n,) twice")
    if not np.isfinite(s).all():
        bad = int(np.flatnonzero(~np.isfinite(s))[0])
        raise ValueError(f"scores[{bad}] is {s[bad]}: expected a finite score")
    if m.sum() in (0, m.size):
        raise ValueError(f"{m.sum()} of {m.size} are members: expected both kinds")
    return s, m


def _twice_below(values: NDArray[Any], rivals: NDArray[Any]) -> Ints:
    """Return, for each value, twice the number of rivals below plus the number of ties."""
    ordered = np.sort(rivals)
    return np.searchsorted(ordered, values) + np.searchsorted(ordered, values, side="right")


def _resolved(fpr: float, nonmembers: int) -> bool:
    return fpr * nonmembers >= 1 - _ROUNDING


def _rate_above(members: Floats, nonmembers: Floats, fpr: float) -> float:
    allowed = int(fpr * nonmembers.size + _ROUNDING)
    if allowed >= nonmembers.size:
        return 1.0
    threshold = np.partition(nonmembers, -allowed - 1)[-allowed - 1]
    return float((members > threshold).mean())


def _best_threshold(scores: Floats, members: Bools) -> float:
    fpr, tpr, thresholds = roc(scores, members)
    best = int(np.argmax(tpr - fpr))
    if best == 0:
        return np.inf
    if best == thresholds.size - 1:
        return -np.inf
    return float(thresholds[best] / 2 + thresholds[best + 1] / 2)


def _auc_with_interval(pairs: _Pairs, confidence: float) -> tuple[float, list[float]]:
    """Return the AUC and its interval; see the notes of :class:`Membership`."""
    s, m = pairs.scores, pairs.members
    value = auc(s, m)
    tail = (1 - confidence) / 2
    variance, freedom = _auc_variance(pairs, value)
    if not 0 < value < 1 or variance == 0:
        return value, pairs.widen(value, value, tail)
    half = student.ppf(1 - tail, freedom) * np.sqrt(variance) / (value * (1 - value))
    ends = expit(logit(value) + half * np.array([-1, 1]))
    return value, pairs.widen(ends[0], ends[1], tail)


def _auc_variance(pairs: _Pairs, value: float) -> tuple[float, float]:
    """Return the variance of the pooled AUC and its degrees of freedom."""
    s, m = pairs.scores, pairs.members
    placement = np.empty(s.size)
    placement[m] = _twice_below(s[m], s[~m]) / (2 * (~m).sum())
    placement[~m] = 1 - _twice_below(s[~m], s[m]) / (2 * m.sum())
    influence = (placement - value) / np.where(m, m.sum(), (~m).sum())

    row, record = pairs.row_index, pairs.record_index
    M, N, K = int(m.sum()), pairs.num_nonmembers, int(row.max()) + 1
    by_row = M > K  # else no target has two members to compare
    inner = influence - _group_mean(influence, 2 * row + m) if by_row else influence
    spare_m, spare_n = max(M - K if by_row else M - 1, 1), max(N - 1, 1)

    total = np.bincount(record, inner)
    held = np.bincount(record, m) > 0
    # a single record shows no spread: its placement's largest possible variance stands in
    of_members = (total[held] ** 2).sum() * M / spare_m if M > 1 else value * (1 - value)
    of_others = (total[~held] ** 2).sum() * N / spare_n if N > 1 else value * (1 - value)
    of_targets = observed = 0.0
    if by_row and K > 1:
        rest = inner[~m] - _group_mean(inner[~m], record[~m])
        noise = (inner[m] ** 2).sum() * M / spare_m
        noise += (rest**2).sum() * N / spare_n * K / (K - 1)
        observed = (np.bincount(row, influence) ** 2).sum() * K / (K - 1)
        of_targets = max(0.0, observed - noise)
    variance = of_members + of_others + of_targets
    spread = of_members**2 / spare_m + of_others**2 / spare_n
    if of_targets:  # a difference knows no more than what it was taken from
        spread += observed**2 / (K - 1)
    return float(variance), float(variance**2 / spread) if spread else np.inf


def _group_mean(values: Floats, group: Ints) -> Floats:
    size = np.maximum(np.bincount(group), 1)
    return (np.bincount(group, values) / size)[group]


def _bootstrap_rates(
    pairs: _Pairs,
    fprs: list[float],
    draws: int,
    rng: np.random.Generator,
    *,
    resample_targets: bool,
) -> Floats:
    """Return resampled TPRs of shape (draws, len(fprs)): weights on scores sorted once.

    Distinct non-members are drawn with replacement, and either the members or whole targets.
    """
    s, m = pairs.scores, pairs.members
    row, record = pairs.row_index, pairs.record_index
    K, held = int(row.max()) + 1, np.bincount(record, m) > 0
    of_record = np.ones((draws, held.size), dtype=np.int32)
    for group in (~held, held & (not resample_targets)):
        if group.any():
            of_record[:, group] = _resample(rng, int(group.sum()), draws)
    of_row = _resample(rng, K, draws) if resample_targets else np.ones((draws, K), dtype=np.int32)

    order = np.argsort(-s[~m])
    rivals, rival_row, rival = s[~m][order], row[~m][order], record[~m][order]
    order = np.argsort(-s[m])
    member_row, member = row[m][order], record[m][order]
    # how many members lie strictly above each possible threshold; all of them above none
    above = np.append(np.searchsorted(-s[m][order], -rivals), member.size)
    pair_count = np.zeros((K, held.size))
    pair_count[rival_row, rival] = 1

    rates = np.empty((draws, len(fprs)))
    # a resample's threshold lies near the top of the order: the rest is read only if one does not
    top = min(rival.size, 64 + int(2 * max(fprs) * rival.size))
    step = max(1, _CHUNK // rival.size)
    for start in range(0, draws, step):
        w, r = of_record[start : start + step], of_row[start : start + step]
        mass = np.cumsum(np.pad(w[:, member] * r[:, member_row], ((0, 0), (1, 0))), axis=1)
        total = (w * (r @ pair_count)).sum(axis=1)
        limits = np.floor(np.outer(total, fprs) + _ROUNDING)
        passed = np.cumsum(w[:, rival[:top]] * r[:, rival_row[:top]], axis=1)
        if (passed[:, -1:] <= limits).any():
            passed = np.cumsum(w[:, rival] * r[:, rival_row], axis=1)
        for i in range(len(fprs)):
            at = (passed <= limits[:, i : i + 1]).sum(axis=1)
            hits = np.take_along_axis(mass, above[at][:, None], axis=1)[:, 0]
            rates[start : start + step, i] = hits / mass[:, -1]
    return rates


def _resample(rng: np.random.Generator, size: int, draws: int) -> NDArray[np.int64]:
    """Return how often each of ``size`` units is drawn, shape (draws, size)."""
    return rng.multinomial(size, np.full(size, 1 / size), draws)
