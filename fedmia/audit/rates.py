"""Errors of a threshold that was chosen on other records, and what they bound a rate by."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv

from fedmia.metrics import Floats, roc


class Errors(NamedTuple):
    """Counts of both kinds of error; the errors may be arrays of one shape."""

    false_positives: ArrayLike
    negatives: int
    misses: ArrayLike
    positives: int

    def upper_rates(self, confidence: float) -> tuple[Floats, Floats]:
        """Return (FPR, FNR), bounded from above by Clopper–Pearson, jointly ``confidence``."""
        level = 1 - (1 - confidence) / 2
        return (
            upper_rate(self.false_positives, self.negatives, level),
            upper_rate(self.misses, self.positives, level),
        )


def upper_rate(events: ArrayLike, trials: int, level: float) -> Floats:
    """Return the one-sided Clopper–Pearson upper end of a binomial rate, of the events' shape."""
    count = np.minimum(np.asarray(events, dtype=np.float64), trials)
    spare = np.maximum(trials - count, 1.0)  # the beta law needs one; replaced below
    return np.where(count < trials, betaincinv(count + 1, spare, level), 1.0)


def held_out_errors(
    scores: ArrayLike,
    members: ArrayLike,
    bound: Callable[[Errors], Floats],
    rng: np.random.Generator,
) -> Errors | None:
    """Return the errors, on one half of the records, of the threshold that the other half prefers.

    Parameters
    ----------
    scores, members
        Shape (n,), float (higher = member) and bool.
    bound
        What the errors of each threshold prove; the largest is preferred.
    rng
        Halves the members and the non-members.

    Returns
    -------
    Errors or None
        ``None`` where there are fewer than two members or two non-members.

    Raises
    ------
    ValueError
        If shapes differ or a score is not finite.
    """
    s, m = np.asarray(scores, dtype=np.float64), np.asarray(members, dtype=np.bool_)
    if s.shape != m.shape or s.ndim != 1 or not np.isfinite(s).all():
        raise ValueError(f"shapes scores={s.shape}, members={m.shape}: expected (n,) and finite")
    if min(m.sum(), (~m).sum()) < 2:
        return None
    fit = np.zeros(m.size, dtype=np.bool_)
    for group in (np.flatnonzero(m), np.flatnonzero(~m)):
        fit[rng.permutation(group)[: group.size // 2]] = True

    fpr, tpr, thresholds = roc(s[fit], m[fit])
    positives, negatives = int(m[fit].sum()), int((~m[fit]).sum())
    tried = Errors(np.rint(fpr * negatives), negatives, np.rint((1 - tpr) * positives), positives)
    threshold = thresholds[int(np.argmax(bound(tried)))]
    above, held = s[~fit] >= threshold, m[~fit]
    return Errors((above & ~held).sum(), int((~held).sum()), (~above & held).sum(), int(held.sum()))


def check_levels(delta: float, confidence: float) -> None:
    """Raise ``ValueError`` unless δ is in [0, 1) and the confidence in (0, 1)."""
    if not 0 <= delta < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"delta={delta}, confidence={confidence}: expected in [0, 1) and in (0, 1)"
        )


def check_trials(num_members: int, num_nonmembers: int) -> None:
    """Raise ``ValueError`` unless there is one of each."""
    if min(num_members, num_nonmembers) < 1:
        raise ValueError(f"{num_members} members, {num_nonmembers} non-members: expected ≥ 1 each")
