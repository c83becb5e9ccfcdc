"""How sure one run is of the AUC of independent records, and of a difference of two AUCs.

E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Comparing the Areas under Two or More Correlated
Receiver Operating Characteristic Curves, Biometrics 44, 1988. With V10_i the share of the N
non-members that member i beats and V01_j the share of the M members that beat non-member j,

    AUC = mean(V10) = mean(V01),    var(AUC) = var(V10)/M + var(V01)/N

and the same with differences of two scores' V10 and V01 in place of them. Both take one score a
record: a federation's, with several targets, is :func:`fedmia.intervals.auc_with_interval`.
"""

import numpy as np
from numpy.typing import ArrayLike

from fedmia.metrics import Bools, Floats, auc, placements


def delong(scores: ArrayLike, members: ArrayLike) -> tuple[float, float]:
    """Return the AUC and its estimated variance, in O(n log n).

    Parameters
    ----------
    scores, members
        Shape (n,), float (higher = member) and bool.

    Raises
    ------
    ValueError
        As :func:`fedmia.metrics.auc`, or if there are fewer than two members or non-members.
    """
    value, placement = _placed(scores, members)
    return value, _variance(placement, np.asarray(members, dtype=np.bool_))


def delong_paired(first: ArrayLike, second: ArrayLike, members: ArrayLike) -> tuple[float, float]:
    """Return AUC(first) − AUC(second) on the same records, and the difference's variance.

    Parameters
    ----------
    first, second, members
        Shape (n,) each. Raises as :func:`delong`.
    """
    value, placement = _placed(first, members)
    other, of_other = _placed(second, members)
    return value - other, _variance(placement - of_other, np.asarray(members, dtype=np.bool_))


def _placed(scores: ArrayLike, members: ArrayLike) -> tuple[float, Floats]:
    value = auc(scores, members)
    s, m = np.asarray(scores, dtype=np.float64), np.asarray(members, dtype=np.bool_)
    if min(m.sum(), (~m).sum()) < 2:
        raise ValueError(f"{m.sum()} of {m.size} are members: expected two of both kinds")
    return value, placements(s, m)


def _variance(placement: Floats, m: Bools) -> float:
    inside, outside = placement[m], placement[~m]
    return float(inside.var(ddof=1) / inside.size + outside.var(ddof=1) / outside.size)
