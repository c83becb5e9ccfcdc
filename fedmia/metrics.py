"""What scores say about memberships: pure functions of flat arrays, **higher score = member**."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

ROUNDING = 1e-9  # fpr * N is a whole number in decimals more often than in binary
_CURVE = 400


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
    below = twice_below(s[m], s[~m])
    return float(int(below.sum()) / (2 * m.sum() * (~m).sum()))


def roc(scores: ArrayLike, members: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return (fpr, tpr, thresholds), thresholds descending from +inf, one step per distinct score.

    Point i counts what scores at or above ``thresholds[i]``. Raises as :func:`auc`.
    """
    s, m = _checked(scores, members)
    order = np.argsort(-s)
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
    if not resolved(fpr, int((~m).sum())):
        return None
    return rate_above(s[m], s[~m], fpr)


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
        Shape (n,), integers from 0: equal numbers mark scores of the same record, which share a
        half.

    Returns
    -------
    float or None
        ``None`` where a half lacks members or non-members. Raises as :func:`auc`.
    """
    s, m = _checked(scores, members)
    ids = np.arange(s.size) if records is None else numbered(records)
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


def achieved_rate(
    scores: ArrayLike,
    members: ArrayLike,
    nominal: float,
    rng: np.random.Generator,
    records: ArrayLike | None = None,
) -> tuple[float, float] | None:
    """Return the (FPR, TPR) of a threshold set for a nominal FPR on other non-members.

    Non-members are halved at random. Each half sets the threshold of :func:`tpr_at_fpr`, the other
    half is accused by it; both results are averaged. Of independent, untied scores a share of
    (k + 1)/(N/2 + 1) is accused in expectation, k = floor(nominal · N/2): more than ``nominal``,
    the more so the fewer non-members there are.

    Parameters
    ----------
    scores, members, records
        As in :func:`balanced_accuracy`.
    nominal
        The FPR that is aimed at, in (0, 1].
    rng
        Draws the halves.

    Returns
    -------
    tuple of float or None
        ``None`` where half of the distinct non-members cannot resolve the rate. Raises as
        :func:`auc`.
    """
    s, m = _checked(scores, members)
    inside, outside = s[m], s[~m]
    ids = np.arange(outside.size) if records is None else numbered(np.asarray(records)[~m])
    distinct = rng.permutation(int(ids.max()) + 1)
    if not resolved(nominal, distinct.size // 2):
        return None
    half = np.zeros(distinct.size, dtype=np.bool_)
    half[distinct[: distinct.size // 2]] = True
    halves = outside[half[ids]], outside[~half[ids]]
    thresholds = [threshold_at(part, nominal) for part in halves]
    fpr = [(part > t).mean() for part, t in zip(halves[::-1], thresholds, strict=True)]
    return float(np.mean(fpr)), float(np.mean([(inside > t).mean() for t in thresholds]))


def ppv(tpr: float, fpr: float, prior: float) -> float | None:
    """Return the share of accusations that are right, π·TPR / (π·TPR + (1 − π)·FPR).

    π is the share of members among the records that are asked about. ``None`` where nobody is
    accused. Raises ``ValueError`` if a rate is not in [0, 1] or the prior not in (0, 1).
    """
    if not (0 <= tpr <= 1 and 0 <= fpr <= 1 and 0 < prior < 1):
        raise ValueError(f"tpr={tpr}, fpr={fpr}, prior={prior}: expected in [0, 1], [0, 1], (0, 1)")
    right, wrong = prior * tpr, (1 - prior) * fpr
    return right / (right + wrong) if right + wrong > 0 else None


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
    below = twice_below(key[m], rivals) / 2 - first
    met = end > first
    return float(np.mean(below[met] / (end - first)[met])) if met.any() else None


def roc_points(scores: ArrayLike, members: ArrayLike) -> tuple[Floats, Floats]:
    """Return (fpr, tpr) of at most 400 points of the exact curve, to be drawn.

    Dense towards FPR 0 on a logarithmic axis and even on a linear one. Raises as :func:`auc`.
    """
    s, m = _checked(scores, members)
    fpr, tpr, _ = roc(s, m)
    low = np.geomspace(1 / (~m).sum(), 1, 3 * _CURVE // 4)
    wanted = np.concatenate([low, np.linspace(0, 1, _CURVE // 4 - 1)])
    kept = np.unique(np.append(0, np.searchsorted(fpr, wanted + ROUNDING, side="right") - 1))
    return fpr[kept], tpr[kept]


def numbered(ids: ArrayLike) -> Ints:
    """Return integers from 0 numbered without gaps, in their order; same shape (n,)."""
    given: Ints = np.asarray(ids)
    number: Ints = np.cumsum(np.bincount(given) > 0) - 1
    return number[given]


def resolved(fpr: float, nonmembers: int) -> bool:
    """Say whether this many non-members can tell a false-positive rate from 0: fpr ≥ 1/N."""
    return fpr * nonmembers >= 1 - ROUNDING


def rate_above(members: Floats, nonmembers: Floats, fpr: float) -> float:
    """Return the TPR of :func:`tpr_at_fpr` for scores given by kind, whatever N resolves."""
    return float((members > threshold_at(nonmembers, fpr)).mean())


def threshold_at(nonmembers: Floats, fpr: float) -> float:
    """Return the score above which lie at most floor(fpr · N) of N non-members' scores."""
    allowed = int(fpr * nonmembers.size + ROUNDING)
    if allowed >= nonmembers.size:
        return -np.inf
    return float(np.partition(nonmembers, -allowed - 1)[-allowed - 1])


def placements(scores: Floats, members: Bools) -> Floats:
    """Return, for each score, the share of the other kind that it beats in the right direction.

    Shape (p,). Their mean over members is the AUC, and so is that over non-members.
    """
    placement = np.empty(scores.size)
    inside, outside = scores[members], scores[~members]
    placement[members] = twice_below(inside, outside) / (2 * outside.size)
    placement[~members] = 1 - twice_below(outside, inside) / (2 * inside.size)
    return placement


def twice_below(values: NDArray[Any], rivals: NDArray[Any]) -> Ints:
    """Return, for each value, twice the number of rivals below plus the number of ties."""
    ordered = np.sort(rivals)
    return np.searchsorted(ordered, values) + np.searchsorted(ordered, values, side="right")


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


def _best_threshold(scores: Floats, members: Bools) -> float:
    fpr, tpr, thresholds = roc(scores, members)
    best = int(np.argmax(tpr - fpr))
    if best == 0:
        return np.inf
    if best == thresholds.size - 1:
        return -np.inf
    return float(thresholds[best] / 2 + thresholds[best + 1] / 2)
