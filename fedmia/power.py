"""What so many members and non-members can show, before anything is trained.

Pure functions of counts. The width of a true-positive rate has two parts, since the threshold is
estimated as well (M. S. Pepe, The Statistical Evaluation of Medical Tests for Classification and
Prediction, Oxford University Press, 2003, chapter 5): with M members and N non-members,

    var(TPR at FPR α) = TPR(1 − TPR)/M + slope² · α(1 − α)/N

where slope is the ROC's at α. The planner takes the ROC of two normal laws of equal variance with a
given AUC: TPR = Φ(d + Φ⁻¹(α)), d = √2 Φ⁻¹(AUC), slope = φ(d + Φ⁻¹(α))/φ(Φ⁻¹(α)).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np
from scipy.stats import norm

from fedmia.audit import epsilon_ceiling, one_run_ceiling
from fedmia.audit.one_run import SHARES
from fedmia.audit.rates import check_trials, upper_rate
from fedmia.metrics import ROUNDING, resolved


@dataclass(frozen=True)
class Resolution:
    """What a run can say about one false-positive rate.

    ``false_positives`` is the number allowed, floor(fpr · N); ``fpr_upper`` the one-sided upper
    bound that so many of N leave; ``tpr`` what the assumed attack reaches and ``half_width`` half
    of its confidence interval. ``for_one``, ``for_ten`` and ``within_two`` are the non-members
    needed for one expected false positive, for ten, and for an ``fpr_upper`` of at most twice the
    rate (``None`` from a rate of one half on). Where the rate is not resolved, ``tpr`` and
    ``half_width`` are ``None``.
    """

    fpr: float
    resolved: bool
    false_positives: int
    fpr_upper: float
    tpr: float | None
    half_width: float | None
    for_one: int
    for_ten: int
    within_two: int | None


def smallest_fpr(nonmembers: int) -> float:
    """Return the smallest false-positive rate that N distinct non-members tell from 0: 1/N."""
    return 1 / nonmembers


def fpr_upper(fpr: float, nonmembers: int, confidence: float) -> float:
    """Return the one-sided upper bound (Clopper–Pearson) of the rate after floor(fpr · N) of N."""
    return float(upper_rate(_allowed(fpr, nonmembers), nonmembers, confidence))


def nonmembers_for(fpr: float, false_positives: float) -> int:
    """Return how many non-members give so many false positives in expectation."""
    return ceil(false_positives / fpr - ROUNDING)


def nonmembers_within(fpr: float, factor: float, confidence: float) -> int:
    """Return how many non-members bound the rate by ``factor`` · fpr when fpr · N are accused.

    Raises
    ------
    ValueError
        If the factor is not above 1, or no rate below 1 is that far above ``fpr``.
    """
    if not factor > 1 or not factor * fpr < 1:
        raise ValueError(f"factor={factor}: expected above 1 and below 1/fpr={1 / fpr:g}")
    events = 1
    while fpr_upper(fpr, nonmembers_for(fpr, events), confidence) > factor * fpr:
        events += 1
    return nonmembers_for(fpr, events)


def binormal_tpr(auc: float, fpr: float) -> float:
    """Return the TPR at an FPR of two normal laws of equal variance with this AUC."""
    return float(norm.cdf(np.sqrt(2) * norm.ppf(auc) + norm.ppf(fpr)))


def tpr_half_width(
    auc: float, fpr: float, members: int, nonmembers: int, confidence: float
) -> float:
    """Return half the width of the confidence interval of that TPR, threshold estimated."""
    at = norm.ppf(fpr)
    tpr = binormal_tpr(auc, fpr)
    slope = norm.pdf(np.sqrt(2) * norm.ppf(auc) + at) / norm.pdf(at)
    variance = tpr * (1 - tpr) / members + slope**2 * fpr * (1 - fpr) / nonmembers
    return float(norm.ppf((1 + confidence) / 2) * np.sqrt(variance))


def auc_half_width(members: int, nonmembers: int, confidence: float) -> float:
    """Return half the width of the interval of an AUC of .5: what guessing reaches by chance.

    The variance is (M + N + 1)/(12·M·N), that of the Mann–Whitney statistic.
    """
    variance = (members + nonmembers + 1) / (12 * members * nonmembers)
    return float(norm.ppf((1 + confidence) / 2) * np.sqrt(variance))


def largest_epsilon(
    members: int, nonmembers: int, delta: float, confidence: float, attacks: int = 1
) -> dict[str, float]:
    """Return the ε that an attack without an error would prove, by procedure.

    ``threshold`` (:func:`fedmia.audit.epsilon_lower_bound`, which counts half of the records) and
    ``one_run`` (:func:`fedmia.audit.epsilon_one_run_from_attacks` on all possible pairs; about
    replacing a record), valid for so many attacks at once.

    Raises
    ------
    ValueError
        If there are fewer than two members or non-members, or a level is out of range.
    """
    check_trials(members - 1, nonmembers - 1)
    pairs = min(members, nonmembers)
    each = 1 - (1 - confidence) / (attacks * len(SHARES))
    counted = (members - members // 2, nonmembers - nonmembers // 2)
    return {
        "threshold": epsilon_ceiling(*counted, delta, 1 - (1 - confidence) / attacks),
        "one_run": max(
            one_run_ceiling(pairs, max(1, round(share * pairs)), delta, each) for share in SHARES
        ),
    }


def plan(
    members: int,
    nonmembers: int,
    fprs: Sequence[float],
    confidence: float,
    auc: float = 0.7,
) -> list[Resolution]:
    """Return what a run of that size can say about each false-positive rate.

    Parameters
    ----------
    members, nonmembers
        Distinct records of either kind, at least 1 each; of all targets together, for pooled rates.
    fprs
        In (0, 1).
    confidence
        In (0, 1).
    auc
        Of the attack that widths are computed for, in (0, 1).

    Raises
    ------
    ValueError
        If a value is out of range.
    """
    check_trials(members, nonmembers)
    if not all(0 < value < 1 for value in (*fprs, confidence, auc)):
        raise ValueError(f"fprs={list(fprs)}, confidence={confidence}, auc={auc}: expected (0, 1)")
    return [_resolution(members, nonmembers, fpr, confidence, auc) for fpr in fprs]


def describe(
    members: int,
    nonmembers: int,
    fprs: Sequence[float],
    confidence: float,
    delta: float = 0.0,
    auc: float = 0.7,
    attacks: int = 1,
) -> tuple[list[dict[str, Any]], str]:
    """Return :func:`plan` as plain values, and one line of text that sums it up.

    Raises ``ValueError`` as :func:`plan` and :func:`largest_epsilon`.
    """
    rows = plan(members, nonmembers, fprs, confidence, auc)
    epsilon = largest_epsilon(members, nonmembers, delta, confidence, attacks)
    half = auc_half_width(members, nonmembers, confidence)
    blind = [row for row in rows if not row.resolved]
    rates = ", ".join(f"{row.fpr:g} (needs {row.for_one})" for row in blind)
    text = (
        f"{members} members, {nonmembers} non-members: the smallest FPR is "
        f"{smallest_fpr(nonmembers):.2g}; an AUC within .5 ± {half:.3f} is chance; ε of at most "
        f"{epsilon['one_run']:.2f} (replacing a record) or {epsilon['threshold']:.2f} (independent "
        "trials) can be shown"
    )
    return [asdict(row) for row in rows], text + (f"; no TPR at {rates}" if rates else "")


def _resolution(
    members: int, nonmembers: int, fpr: float, confidence: float, auc: float
) -> Resolution:
    known = resolved(fpr, nonmembers)
    width = tpr_half_width(auc, fpr, members, nonmembers, confidence)
    return Resolution(
        fpr=fpr,
        resolved=known,
        false_positives=_allowed(fpr, nonmembers),
        fpr_upper=fpr_upper(fpr, nonmembers, confidence),
        tpr=binormal_tpr(auc, fpr) if known else None,
        half_width=width if known else None,
        for_one=nonmembers_for(fpr, 1),
        for_ten=nonmembers_for(fpr, 10),
        within_two=nonmembers_within(fpr, 2, confidence) if fpr < 0.5 else None,
    )


def _allowed(fpr: float, nonmembers: int) -> int:
    return int(fpr * nonmembers + ROUNDING)
