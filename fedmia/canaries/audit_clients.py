"""What canary clients prove of the ε of one client's taking part, and what they suggest."""

import copy

import numpy as np
from scipy.special import betainc

from fedmia.audit import one_shot_all_rounds, one_shot_final, one_shot_lower_bound
from fedmia.audit.rates import upper_rate
from fedmia.canaries.watch import Floats, Watch
from fedmia.promised import CanaryClients

_TINY = np.finfo(np.float64).tiny


def audit_canaries(
    watch: Watch, delta: float, confidence: float, rng: np.random.Generator
) -> CanaryClients:
    """Return what a training showed of its canary clients; neighbours differ in one client.

    The headline bound is the one after the last round, fixed beforehand. Those of earlier rounds
    hold one by one, not all at once. What has no direction, a model that never changed, gives
    ``None``.

    Parameters
    ----------
    watch
        Of the whole training.
    delta
        At which ε is given, in (0, 1).
    confidence
        Of the bounds, in (0, 1).
    rng
        Halves the canaries, for all rounds alike.
    """

    def bound(seen: Floats | None) -> float | None:
        if seen is None:
            return None
        halves = copy.deepcopy(rng)
        return one_shot_lower_bound(seen, watch.dimension, delta, confidence, halves)

    rounds = {number: bound(seen) for number, seen in watch.since_start.items()}
    last = next(reversed(watch.since_start), None)
    final = None if last is None else watch.since_start[last]
    found: CanaryClients = {
        "count": watch.count,
        "dimension": watch.dimension,
        "epsilon_estimate_final": None,
        "epsilon_estimate_all_rounds": None,
        "epsilon_lower_bound": None if last is None else rounds[last],
        "epsilon_ceiling": None,
        "normality": None,
        "per_round": [{"round": r, "epsilon_lower_bound": value} for r, value in rounds.items()],
    }
    if watch.dimension >= 2:
        found["epsilon_ceiling"] = ceiling(watch, delta, confidence)
    if final is not None and np.ptp(final) > 0:
        estimate = one_shot_final(final, watch.dimension, delta)
        found["epsilon_estimate_final"] = estimate.epsilon
        found["normality"] = estimate.normality
    seen, unseen = watch.largest_sent, watch.largest_unsent
    if np.isfinite(seen).all() and min(np.ptp(seen), np.ptp(unseen)) > 0:
        found["epsilon_estimate_all_rounds"] = one_shot_all_rounds(seen, unseen, delta).epsilon
    return found


def ceiling(watch: Watch, delta: float, confidence: float) -> float:
    """Return what no training lets these canaries exceed, whatever it does with them.

    The bound of :func:`fedmia.audit.one_shot_lower_bound` knows its FPR, so that the number of
    canaries alone is no ceiling on it. But one change cannot point along many directions at once:
    if s canaries, s − 1 counted ones and the one that chose the threshold t, reach it, then
    ``s·t²`` is at most the largest eigenvalue λ of their Gram matrix, which is no larger than that
    of all directions, nor than 1 + (s − 1)·max |c_i·c_j| (Gershgorin); and
    FPR ≥ ½ P[Beta(½, (d − 1)/2) ≥ λ/s]. The ceiling is the largest bound over all s. In many
    dimensions that FPR is below what a double holds, and the ceiling is near 700.
    """
    counted = watch.count - watch.count // 2
    above = np.arange(counted + 1)
    fnr = upper_rate(counted - above, counted, confidence)
    eigenvalue = np.minimum(watch.overlap, 1 + above * watch.coherence)
    square = np.minimum(eigenvalue / (above + 1), 1.0)
    fpr = np.maximum(betainc((watch.dimension - 1) / 2, 0.5, 1 - square) / 2, _TINY)
    odds = np.maximum((1 - delta - fnr) / fpr, (1 - delta - fpr) / fnr)
    return float(np.log(max(odds.max(), 1.0)))
