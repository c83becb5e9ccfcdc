"""An estimate of a federation's ε from the directions of canary clients, in one training run.

G. Andrew, P. Kairouz, S. Oh, A. Oprea, H. B. McMahan, V. Suriyakumar, One-shot Empirical Privacy
Estimation for Federated Learning, ICLR 2024 (arXiv 2302.03098). Canary client j sends a random unit
direction c_j, scaled to the clipping norm. The statistic is its cosine with what training did:
with the difference of final and first model, or the largest one with any round's difference. For a
direction that no client sent, the cosine in d dimensions is nearly N(0, 1/d); for those that were
sent a normal law is fitted; ε is the one that two such laws have at δ, exactly.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, betaincinv

from fedmia.audit.normal import Normal, epsilon_of_gaussians, fit_normal, normality
from fedmia.audit.rates import check_levels, upper_rate
from fedmia.metrics import Floats, Ints

_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class OneShot:
    """The estimated ε, the law (mean, std) fitted to the canaries, and how normal they look.

    ``normality`` is the p-value of :func:`normality`: a small one says that ε means nothing.
    """

    epsilon: float
    seen: Normal
    normality: float


def cosines(canaries: ArrayLike, change: ArrayLike) -> Floats:
    """Return the cosine of each canary, shape (k, d), with a model's change, shape (d,): (k,)."""
    return max_cosines(canaries, np.asarray(change)[None])


def max_cosines(canaries: ArrayLike, changes: ArrayLike) -> Floats:
    """Return each canary's largest cosine with a round's change: (k, d) and (T, d) give (k,).

    Raises
    ------
    ValueError
        If shapes disagree or a vector has no direction.
    """
    c, x = np.asarray(canaries, dtype=np.float64), np.asarray(changes, dtype=np.float64)
    if c.ndim != 2 or x.ndim != 2 or c.shape[1] != x.shape[1]:
        raise ValueError(f"shapes canaries={c.shape}, changes={x.shape}: expected (k, d), (T, d)")
    lengths = np.outer(np.linalg.norm(c, axis=1), np.linalg.norm(x, axis=1))
    if not (lengths > 0).all():
        raise ValueError("a canary or a change has norm 0: expected a direction")
    return np.asarray((c @ x.T / lengths).max(axis=1))


def one_shot_final(seen: ArrayLike, dimension: int, delta: float) -> OneShot:
    """Estimate ε from the cosines of the canaries, shape (k,), with the whole training's change.

    No confidence is attached to the estimate. Raises as :func:`one_shot_all_rounds`.
    """
    return _estimate(seen, (0.0, dimension**-0.5), delta)


def one_shot_all_rounds(seen: ArrayLike, unseen: ArrayLike, delta: float) -> OneShot:
    """Estimate ε from largest cosines over rounds, of canaries that took part and of fresh ones.

    A largest cosine has no known null law: a normal one is fitted to ``unseen``, directions that
    were drawn and never sent, as to ``seen``; in any numbers.

    Raises
    ------
    ValueError
        If there are fewer than eight cosines seen or two unseen, all are equal, one is not finite,
        or δ is not in (0, 1).
    """
    return _estimate(seen, fit_normal(unseen), delta)


def one_shot_lower_bound(
    seen: ArrayLike,
    dimension: int,
    delta: float,
    confidence: float,
    rng: np.random.Generator,
    *,
    jeffreys: bool = False,
) -> float:
    """Return a lower bound on ε from final cosines that assumes no law of the canaries seen.

    ε ≥ max{ln((1 − δ − FNR)/FPR), ln((1 − δ − FPR)/FNR)} at a threshold that a random half of the
    canaries chooses: the best one if in the other half as many are missed as in 99 of 100 cases
    at most (:func:`_feared`). Its FPR is known, not counted: with t the threshold, cos² of a fresh
    direction is Beta(½, (d − 1)/2), so that FPR = ½ I_{1−t²}((d − 1)/2, ½). The number of trials
    therefore sets no ceiling on the side of false positives. The FNR is bounded from above on the
    other half, as if canaries were independent trials: in one run they share its noise, which
    matters little as long as k ≪ d.

    Parameters
    ----------
    seen
        Shape (k,): cosines of the canaries that took part.
    dimension
        d, at least 2.
    delta, confidence
        As in :func:`fedmia.audit.epsilon_lower_bound`.
    rng
        Draws the halves.
    jeffreys
        Bound the FNR by Jeffreys' interval, which holds on average over rates, instead of
        Clopper–Pearson's, which holds at each.

    Returns
    -------
    float
        At least 0; 0 with fewer than two canaries. Raises ``ValueError`` if δ, the confidence, the
        dimension or a cosine is out of range.
    """
    check_levels(delta, confidence)
    s = np.asarray(seen, dtype=np.float64)
    if s.ndim != 1 or dimension < 2 or not (np.abs(s) <= 1).all():
        raise ValueError(f"shape {s.shape}, dimension={dimension}: expected cosines (k,), d ≥ 2")
    if s.size < 2:
        return 0.0
    order = rng.permutation(s)
    fit, counted = order[: s.size // 2], order[s.size // 2 :]

    def bound(thresholds: Floats, misses: Floats) -> Floats:
        fnr = upper_rate(misses, counted.size, confidence)
        if jeffreys:
            certain = betaincinv(misses + 0.5, counted.size - misses + 0.5, confidence)
            fnr = np.where(misses < counted.size, certain, 1.0)
        tail = betainc((dimension - 1) / 2, 0.5, 1 - thresholds**2) / 2
        fpr = np.maximum(np.where(thresholds < 0, 1 - tail, tail), _TINY)
        odds = np.maximum((1 - delta - fnr) / fpr, (1 - delta - fpr) / fnr)
        return np.log(np.maximum(odds, 1.0))

    below = (fit < fit[:, None]).sum(axis=1)
    chosen = fit[np.argmax(bound(fit, _feared(below, fit.size, counted.size)))]
    missed = np.array([float((counted < chosen).sum())])
    return float(bound(np.array([chosen]), missed)[0])


def _feared(misses: Ints, trials: int, more: int) -> Floats:
    """Return the misses among ``more`` trials that are exceeded in one case of a hundred.

    By a normal approximation to the beta-binomial law that ``misses`` (t,) of ``trials`` and
    Jeffreys' prior predict: the bound falls off a cliff where all are missed.
    """
    rate = (misses + 0.5) / (trials + 1)
    spread = np.sqrt(more * rate * (1 - rate) * (trials + 1 + more) / (trials + 2))
    return np.clip(np.ceil(more * rate + 2.3263 * spread), 0, more)


def _estimate(seen: ArrayLike, null: Normal, delta: float) -> OneShot:
    fitted = fit_normal(seen)
    return OneShot(epsilon_of_gaussians(null, fitted, delta), fitted, normality(seen))
