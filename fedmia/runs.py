"""Statistics over several runs that differ in their seed, and of two configurations on the same.

A run's figure varies twice: with the seed (another split, initialisation and order) and with the
records that it happens to compare. The interval of the mean over R runs is a bootstrap on both
levels. Drawing runs with replacement already carries the records' share, since runs compare
different records; so the runs' deviations from their mean are first shrunk to what the seeds alone
account for, and reflated for their number (J. R. Carpenter, H. Goldstein, J. Rasbash, A Novel
Bootstrap Procedure for Assessing the Relationship between Class Size and Achievement, Journal of
the Royal Statistical Society C 52, 2003):

    θ*_r = mean + sqrt(σ_b²/S²)·sqrt(R/(R − 1))·(θ_r' − mean) + (w*_r' − mean of w*_r'),

r' drawn from the runs, w*_r' the figure of run r' on resampled records, S² the runs' variance,
σ_b² = max(0, S² − mean of var(w*_r)). The ends are stretched by Student's t with R − 1 degrees of
freedom over the normal quantile: R runs know their own variance no better than that. With 3 runs
that is a factor of 2.2, with 5 of 1.4, with 2 of 6.5: two runs say next to nothing.

What the interval covers is other seeds on the same data set, not another data set. Every seed
splits the same records, and what they have in common stays unseen.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm
from scipy.stats import t as student

from fedmia.intervals import Weights, resampled_records, weighted_rates
from fedmia.metrics import Floats, resolved
from fedmia.pairs import Pairs, pair

Statistic = Callable[[Pairs, Weights], Floats]
"""Pairs and how often each record counts, shape (draws, records), to one figure each (draws,)."""


class Run(NamedTuple):
    """Scores (K, n) of one attack in one run, and whose record each candidate is, (n,)."""

    scores: ArrayLike
    owner: ArrayLike


class Interval(NamedTuple):
    """A mean over runs with its confidence interval."""

    mean: float
    low: float
    high: float


def area(pairs: Pairs, weights: Weights) -> Floats:
    """Return the pooled AUC under each of the weights: (draws, records) gives (draws,)."""
    s, m = pairs.scores, pairs.members
    inside, outside = pairs.record_index[m], pairs.record_index[~m]
    held, free = np.unique(inside), np.unique(outside)
    order = np.argsort(s[~m], kind="stable")
    rivals, rival = s[~m][order], np.searchsorted(free, outside[order])
    wins = np.zeros((held.size, free.size))  # twice the wins of one record over another
    below, upto = (np.searchsorted(rivals, s[m], side) for side in ("left", "right"))
    for row, *ends in zip(np.searchsorted(held, inside), below, upto, strict=True):
        for end in ends:
            wins[row] += np.bincount(rival[:end], minlength=free.size)
    w, v = weights[:, held].astype(np.float64), weights[:, free].astype(np.float64)
    copies = np.bincount(np.searchsorted(held, inside), minlength=held.size)
    rivals_of = np.bincount(rival, minlength=free.size)
    return np.asarray(((w @ wins) * v).sum(axis=1) / (2 * (w @ copies) * (v @ rivals_of)))


@dataclass(frozen=True)
class Rate:
    """The pooled TPR at one FPR, as :meth:`fedmia.pairs.Pairs.rates` has it."""

    fpr: float

    def __call__(self, pairs: Pairs, weights: Weights) -> Floats:
        """Return the rate under each of the weights: (draws, records) gives (draws,).

        Raises ``ValueError`` where the distinct non-members cannot resolve the rate.
        """
        if not resolved(self.fpr, pairs.num_nonmembers):
            raise ValueError(f"fpr={self.fpr}: expected ≥ 1/{pairs.num_nonmembers} in every run")
        return weighted_rates(pairs, [self.fpr], weights)[:, 0]


def hierarchical_interval(
    runs: Sequence[Run],
    statistic: Statistic,
    confidence: float,
    draws: int,
    rng: np.random.Generator,
) -> Interval:
    """Return the mean of a statistic over runs of different seeds, and its interval, in [0, 1].

    Where no resample varies, as under perfect separation, the interval is widened to what the
    records of all runs together cannot exclude: with n of them of the rarer kind, a^(1/n) of n
    successes, a = (1 − confidence)/2.

    Parameters
    ----------
    runs
        At least two, of one configuration.
    statistic
        :func:`area`, :class:`Rate` or another one.
    confidence
        In (0, 1).
    draws
        Bootstrap resamples, at least 100.
    rng
        Draws runs and records.

    Raises
    ------
    ValueError
        If runs or draws are too few, or a run cannot be measured (:func:`fedmia.pairs.pair`).
    """
    compared = [pair(run.scores, run.owner) for run in runs]
    found = [_resampled([pairs], statistic, draws, rng)[0] for pairs in compared]
    return _interval(found, compared, confidence, rng, floor=0.0)


def paired_difference(
    runs_a: Mapping[int, Run],
    runs_b: Mapping[int, Run],
    statistic: Statistic,
    confidence: float,
    draws: int,
    rng: np.random.Generator,
) -> Interval:
    """Return the mean over seeds of a's statistic minus b's, and its interval, in [−1, 1].

    A defence is compared with none on the same seeds and records, which both sides are resampled
    by together: what makes a seed or a record easy cancels.

    Parameters
    ----------
    runs_a, runs_b
        Runs by seed, the same two or more seeds on both sides, with the same ``owner`` at each.
    statistic, confidence, draws, rng
        As in :func:`hierarchical_interval`.

    Raises
    ------
    ValueError
        As there, or if seeds or records do not match.
    """
    if set(runs_a) != set(runs_b):
        raise ValueError(f"seeds {sorted(runs_a)} and {sorted(runs_b)}: expected the same")
    compared, found = [], []
    for seed in sorted(runs_a):
        a, b = runs_a[seed], runs_b[seed]
        if not np.array_equal(a.owner, b.owner):
            raise ValueError(f"seed {seed}: expected the same records with the same owners")
        both = [pair(a.scores, a.owner), pair(b.scores, b.owner)]
        first, second = _resampled(both, statistic, draws, rng)
        compared.append(both[0])
        found.append(first - second)
    return _interval(found, compared, confidence, rng, floor=-1.0)


def _resampled(
    compared: Sequence[Pairs], statistic: Statistic, draws: int, rng: np.random.Generator
) -> list[Floats]:
    """Return the statistic of each, of shape (1 + draws,): as it is, then on the same resamples."""
    if draws < 100:
        raise ValueError(f"draws={draws}: expected at least 100")
    drawn = resampled_records(compared[0].is_member, draws, rng)
    weights = np.concatenate([np.ones_like(drawn[:1]), drawn])
    return [statistic(pairs, weights) for pairs in compared]


def _interval(
    found: Sequence[Floats],
    compared: Sequence[Pairs],
    confidence: float,
    rng: np.random.Generator,
    *,
    floor: float,
) -> Interval:
    if len(found) < 2:
        raise ValueError(f"{len(found)} run: expected at least 2, to tell how seeds differ")
    values, within = np.array([f[0] for f in found]), np.array([f[1:] for f in found])
    low, high = _two_levels(values, within, confidence, rng)
    if low == high:
        records = sum(min(int(p.members.sum()), p.num_nonmembers) for p in compared)
        high = 1 - ((1 - confidence) / 2) ** (1 / records)
        low = -high
    mean = float(values.mean())
    return Interval(mean, max(floor, mean + low), min(1.0, mean + high))


def _two_levels(
    values: Floats, within: Floats, confidence: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the interval's ends as deviations from the mean; of shapes (R,) and (R, draws)."""
    R, draws = within.shape
    tail = (1 - confidence) / 2
    observed, noise = values.var(ddof=1), within.var(axis=1, ddof=1).mean()
    of_seeds = max(0.0, observed - noise)
    shrink = np.sqrt(of_seeds / observed * R / (R - 1)) if of_seeds else 0.0
    # each place of a resample takes a run and one of its own resamples
    run, draw = rng.integers(R, size=(draws, R)), rng.integers(draws, size=(draws, R))
    deviation = shrink * (values - values.mean())[run]
    deviation += (within - within.mean(axis=1, keepdims=True))[run, draw]
    stretch = student.ppf(1 - tail, R - 1) / norm.ppf(1 - tail)
    low, high = stretch * np.quantile(deviation.mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)
