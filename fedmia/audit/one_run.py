"""A lower bound on ε from guesses about many records of a single training run.

T. Steinke, M. Nasr, M. Jagielski, Privacy Auditing with One (1) Training Run, NeurIPS 2023
(arXiv 2305.08846). Of m canaries each is in or out by its own fair coin; of r guesses, v are
right. If one coin's fall changes the output (ε, δ)-indistinguishably, then with q = e^ε/(1 + e^ε)

    P[at least v right] ≤ β + 2mδ·α,   β = P[Bin(r, q) ≥ v],
    α = max_{i ≥ 1} P[v − i ≤ Bin(r, q) < v] / i

and every ε at which the right-hand side stays below 1 − confidence is excluded. The m outcomes may
depend on each other in any way; the coins may not.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import binom

from fedmia.audit.rates import check_levels
from fedmia.metrics import Floats, Ints

SHARES = (0.1, 0.5, 1.0)
"""Shares of the pairs that a run's bound guesses about."""


def one_run_p_value(
    epsilon: float, delta: float, num_canaries: int, num_guesses: int, num_correct: int
) -> float:
    """Return the bound above on the chance of so many right guesses under (ε, δ)-DP.

    Raises ``ValueError`` unless 0 ≤ correct ≤ guesses ≤ canaries.
    """
    m, r, v = num_canaries, num_guesses, num_correct
    if not 0 <= v <= r <= m:
        raise ValueError(f"{v} of {r} guesses on {m} canaries: expected 0 ≤ {v} ≤ {r} ≤ {m}")
    q = expit(epsilon)
    beta = binom.sf(v - 1, r, q)
    if delta == 0 or v == 0:
        return float(beta)
    i = np.arange(1, v + 1)
    alpha = np.max(np.cumsum(binom.pmf(v - i, r, q)) / i)
    return float(min(1.0, beta + 2 * m * delta * alpha))


@lru_cache(maxsize=4096)  # the rounds of a run ask the same again and again
def one_run_epsilon(
    num_canaries: int, num_guesses: int, num_correct: int, delta: float, confidence: float
) -> float:
    """Return the largest ε that so many right guesses exclude; at least 0.

    Raises ``ValueError`` as :func:`one_run_p_value`, or if δ or the confidence is out of range.
    """
    check_levels(delta, confidence)

    def above(epsilon: float) -> float:
        p = one_run_p_value(epsilon, delta, num_canaries, num_guesses, num_correct)
        return p - (1 - confidence)

    if above(0.0) >= 0:
        return 0.0
    high = 1.0
    while above(high) < 0:
        high *= 2
    return float(brentq(above, 0.0, high, xtol=1e-9))


def one_run_ceiling(num_canaries: int, num_guesses: int, delta: float, confidence: float) -> float:
    """Return the bound for guesses that are all right. Raises as :func:`one_run_epsilon`."""
    return one_run_epsilon(num_canaries, num_guesses, num_guesses, delta, confidence)


def one_run_lower_bound(
    scores: ArrayLike,
    included: ArrayLike,
    guesses_in: int,
    guesses_out: int,
    delta: float,
    confidence: float,
    rng: np.random.Generator,
) -> float:
    """Guess the highest scores in and the lowest out, and return what the right ones prove.

    Adjacency is adding or removing one canary.

    Parameters
    ----------
    scores, included
        Shape (m,), float (higher = in) and bool: **each** canary in by its own fair coin. A split
        of fixed size is none: there the last record's membership follows from the others'.
    guesses_in, guesses_out
        k+ and k−, fixed before ``included`` is looked at; k+ + k− ≤ m.
    delta, confidence
        As in :func:`fedmia.audit.epsilon_lower_bound`.
    rng
        Orders equal scores.

    Raises
    ------
    ValueError
        If shapes differ, a score is not finite, or a count or a level is out of range.
    """
    check_levels(delta, confidence)
    s, known = np.asarray(scores, dtype=np.float64), np.asarray(included, dtype=np.bool_)
    if s.ndim != 1 or s.shape != known.shape or not np.isfinite(s).all():
        raise ValueError(f"shapes scores={s.shape}, included={known.shape}: expected (m,), finite")
    if min(guesses_in, guesses_out) < 0 or guesses_in + guesses_out > s.size:
        raise ValueError(
            f"guesses_in={guesses_in}, guesses_out={guesses_out}: expected ≥ 0, {s.size} at most"
        )
    order = np.lexsort((rng.random(s.size), -s))
    right = known[order[:guesses_in]].sum() + (~known[order[s.size - guesses_out :]]).sum()
    guesses = guesses_in + guesses_out
    return one_run_epsilon(s.size, guesses, int(right), delta, confidence)


def matched_pairs(
    owner: ArrayLike, labels: ArrayLike, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """Return a member and a held-out record of its label for each of m pairs, both of shape (m,).

    Every record is in one pair at most; a label gives as many pairs as its rarer kind has records.
    ``owner`` as in :func:`fedmia.audit.epsilon_from_attacks`, labels of shape (n,).
    """
    own, label = np.asarray(owner), np.asarray(labels)
    inside, outside = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for value in np.unique(label):
        held = rng.permutation(np.flatnonzero((own >= 0) & (label == value)))
        free = rng.permutation(np.flatnonzero((own == -1) & (label == value)))
        size = min(held.size, free.size)
        inside.append(held[:size])
        outside.append(free[:size])
    return np.concatenate(inside), np.concatenate(outside)


def epsilon_one_run_from_attacks(
    scores_by_attack: Mapping[str, ArrayLike],
    owner: ArrayLike,
    labels: ArrayLike,
    delta: float,
    confidence: float,
    rng: np.random.Generator,
    shares: Sequence[float] = SHARES,
) -> tuple[float, float]:
    """Return a lower bound on the ε of **replacing** one record in this run, and its ceiling.

    A run's members are drawn without replacement and fixed in number, so that their memberships
    are no independent coins and :func:`one_run_lower_bound` does not apply to single records. It
    applies to pairs: match every member of row k with a held-out record of its label at random,
    and which of the two was trained on is a fair coin, independent of all other pairs', given who
    is paired with whom. The guess is the one that row k scores higher, on those pairs first
    whose scores differ most. Removing a record changes what replacing changes in two such steps:
    the ε of add/remove is at least half of the bound at δ = 0.

    Two things are assumed, and neither is that records are independent trials. Within a label, the
    split drew the members from all candidates evenly, as iid, stratified, Dirichlet and shard
    partitions do; where clients are natural owners, ``labels`` have to number the pairs of owner
    and label instead. And scores do not depend on the order of the candidates.

    Parameters
    ----------
    scores_by_attack
        Scores of shape (K, n) by the attack's name.
    owner, labels
        Shape (n,); ``owner`` as in :func:`fedmia.audit.epsilon_from_attacks`.
    delta, confidence
        As in :func:`fedmia.audit.epsilon_lower_bound`, valid for all attacks and shares at once
        (Bonferroni).
    rng
        Draws the pairs and orders equal differences.
    shares
        Shares of the pairs that are guessed about, each in (0, 1], fixed beforehand.

    Returns
    -------
    tuple of float
        The largest bound, and that of an attack that is always right; (0, 0) without attacks or
        pairs.

    Raises
    ------
    ValueError
        If a level or a share is out of range or a score is not finite.
    """
    check_levels(delta, confidence)
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"shares={list(shares)}: expected values in (0, 1]")
    inside, outside = matched_pairs(owner, labels, rng)
    m, row = inside.size, np.asarray(owner)[inside]
    if not scores_by_attack or m == 0:
        return 0.0, 0.0
    each = 1 - (1 - confidence) / (len(scores_by_attack) * len(shares))
    guesses = [max(1, round(share * m)) for share in shares]
    found: set[tuple[int, int]] = set()
    for scores in scores_by_attack.values():
        s = np.asarray(scores, dtype=np.float64)
        right = _ordered_guesses(s[row, inside] - s[row, outside], rng)
        found |= {(r, int(right[:r].sum())) for r in guesses}
    bound = largest_bound(m, found, delta, each)
    return bound, largest_bound(m, [(r, r) for r in guesses], delta, each)


def largest_bound(
    num_canaries: int, found: Iterable[tuple[int, int]], delta: float, confidence: float
) -> float:
    """Return the largest :func:`one_run_epsilon` of several pairs (guesses, right ones).

    One p-value decides whether a pair proves more than the best so far; only then is it solved.
    """
    best = 0.0
    for guesses, right in sorted(found, key=lambda pair: -pair[1]):
        if one_run_p_value(best, delta, num_canaries, guesses, right) < 1 - confidence:
            best = one_run_epsilon(num_canaries, guesses, right, delta, confidence)
    return best


def _ordered_guesses(difference: Floats, rng: np.random.Generator) -> Ints:
    """Return which guesses are right, the surest first; equal scores are guessed by a coin."""
    if not np.isfinite(difference).all():
        raise ValueError("a score is not finite: expected finite scores")
    order = np.lexsort((rng.random(difference.size), -np.abs(difference)))
    coin = rng.random(difference.size) < 0.5
    return np.where(difference == 0, coin, difference > 0)[order].astype(np.int64)
