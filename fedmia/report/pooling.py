"""Figures of several seeds as one, with what their number allows to say about the spread."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fedmia.results import SCORES_NAME
from fedmia.runs import Rate, Run, Statistic, area, hierarchical_interval, paired_difference
from fedmia.seeding import generator

CONFIDENCE = 0.95
DRAWS = 400
ENOUGH = 3
"""Fewer seeds than this show their spread and have no interval."""


@dataclass(frozen=True)
class Pooled:
    """A mean over seeds and its spread; ``low`` and ``high`` are what ``kind`` says.

    ``run``: the interval of the only run. ``range``: smallest and largest of two seeds.
    ``bootstrap``: the 95% interval over seeds and records of :mod:`fedmia.runs`, from three seeds
    on. ``t``: the 95% Student interval of the mean, where scores were not kept.
    """

    mean: float
    low: float
    high: float
    kind: Literal["run", "range", "t", "bootstrap"]


def read_scores(folder: Path | None, attack: str) -> Run | None:
    """Return the scores that a run directory keeps of one attack, ``None`` where it has none."""
    if folder is None or not (folder / SCORES_NAME).is_file():
        return None
    with np.load(folder / SCORES_NAME, allow_pickle=False) as file:
        name = f"score/{attack}"
        return Run(file[name], file["owner"]) if name in file else None


def pool(
    values: Sequence[float],
    own: Sequence[float],
    scores: Sequence[Run | None] = (),
    floor: float = 0.0,
    fpr: float | None = None,
) -> Pooled:
    """Return the mean of one value a seed.

    Parameters
    ----------
    values
        The figure of each seed, in [floor, 1].
    own
        The interval of the run if it is alone.
    scores
        Of each seed, where ``values`` are AUCs, or TPRs at ``fpr``; used if none is missing.
    floor
        The smallest possible value.
    fpr
        The false-positive rate at which ``values`` are TPRs.
    """
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Pooled(mean, own[0], own[1], "run")
    if len(values) < ENOUGH:
        return Pooled(mean, min(values), max(values), "range")
    kept = [run for run in scores if run is not None]
    if len(kept) == len(values):
        rng = generator(0, "pooled seeds")
        return _bootstrap(*hierarchical_interval(kept, _statistic(fpr), CONFIDENCE, DRAWS, rng))
    # Imported here: a table of single runs must not wait for scipy.
    from scipy import stats

    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    half = quantile * math.sqrt(variance / len(values))
    return Pooled(mean, max(floor, mean - half), min(1.0, mean + half), "t")


def difference(
    here: Mapping[int, float],
    there: Mapping[int, float],
    scores: Mapping[int, tuple[Run | None, Run | None]],
    fpr: float | None = None,
) -> Pooled | None:
    """Return the mean of here minus there over the seeds of both, ``None`` without one.

    ``scores`` holds both sides' by seed. The figures are AUCs, or TPRs at ``fpr``. One seed has
    no spread: both ends are its difference.
    """
    seeds = sorted(set(here) & set(there))
    if not seeds:
        return None
    values = [here[seed] - there[seed] for seed in seeds]
    a: dict[int, Run] = {}
    b: dict[int, Run] = {}
    for seed in seeds:
        mine, its = scores.get(seed, (None, None))
        if mine and its and np.array_equal(mine.owner, its.owner):
            a[seed], b[seed] = mine, its
    if len(seeds) >= ENOUGH and len(a) == len(seeds):
        rng = generator(0, "paired seeds")
        return _bootstrap(*paired_difference(a, b, _statistic(fpr), CONFIDENCE, DRAWS, rng))
    return pool(values, values * 2, floor=-1.0)


def _statistic(fpr: float | None) -> Statistic:
    return area if fpr is None else Rate(fpr)


def _bootstrap(mean: float, low: float, high: float) -> Pooled:
    return Pooled(mean, low, high, "bootstrap")
