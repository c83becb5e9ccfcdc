"""A lower bound on ε from records that were put in by the toss of a coin each.

T. Steinke, M. Nasr, M. Jagielski, Privacy Auditing with One (1) Training Run, NeurIPS 2023
(arXiv 2305.08846), for attacks with a row of scores a client.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from fedmia.audit.one_run import SHARES, largest_bound
from fedmia.audit.rates import check_levels


def epsilon_one_run_from_coins(
    scores_by_attack: Mapping[str, ArrayLike],
    owner: ArrayLike,
    host: ArrayLike,
    delta: float,
    confidence: float,
    rng: np.random.Generator,
    shares: Sequence[float] = SHARES,
) -> tuple[float, float]:
    """Return a lower bound on the ε of **adding or removing** one canary, and its ceiling.

    Each canary was assigned to a client, then its own fair coin decided whether it went there. So
    its score is that of its client's row whether it is in or out, and coins stay independent given
    all that an attack may have seen before. Rows have scales of their own: what counts is the rank
    within the row. Of m canaries the highest are guessed to be in, as many of the lowest to be out.

    Parameters
    ----------
    scores_by_attack
        Scores of shape (K, n) by the attack's name; higher = in.
    owner, host
        Shape (n,): the row that a canary is a member of, negative if its coin said out; the row
        that it would be a member of, negative for one that is not asked about. Which are not must
        not depend on the coins.
    delta, confidence
        As in :func:`fedmia.audit.epsilon_lower_bound`, valid for all attacks and shares at once
        (Bonferroni).
    rng
        Orders equal ranks.
    shares
        Shares of the canaries that are guessed about, each in (0, 1], fixed beforehand.

    Returns
    -------
    tuple of float
        The largest bound, and that of an attack that is always right; (0, 0) without attacks or
        with fewer than two canaries.

    Raises
    ------
    ValueError
        If a level or a share is out of range or a score is not finite.
    """
    check_levels(delta, confidence)
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"shares={list(shares)}: expected values in (0, 1]")
    asked = np.flatnonzero(np.asarray(host) >= 0)
    row, included = np.asarray(host)[asked], np.asarray(owner)[asked] >= 0
    m = asked.size
    if not scores_by_attack or m < 2:
        return 0.0, 0.0
    each = 1 - (1 - confidence) / (len(scores_by_attack) * len(shares))
    sides = [max(1, int(share * m) // 2) for share in shares]
    found: set[tuple[int, int]] = set()
    for scores in scores_by_attack.values():
        s = np.asarray(scores, dtype=np.float64)[:, asked]
        if not np.isfinite(s).all():
            raise ValueError("a score is not finite: expected finite scores")
        rank = rankdata(s, axis=1)[row, np.arange(m)]
        held = included[np.lexsort((rng.random(m), -rank))]
        found |= {(2 * k, int(held[:k].sum() + (~held[m - k :]).sum())) for k in sides}
    bound = largest_bound(m, found, delta, each)
    return bound, largest_bound(m, [(2 * k, 2 * k) for k in sides], delta, each)
