"""What privacy costs and buys: accuracy and leakage of several runs by the ε that is claimed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fedmia.report.groups import Seed, good, mean
from fedmia.report.pooling import Pooled, pool, read_scores
from fedmia.report.wording import DASH, interval, number, percent
from fedmia.results import Result


class Claimed(NamedTuple):
    """The ε of a configuration; ``None`` where there is none, as without noise."""

    epsilon: float | None
    covers: bool  # the vantage from which it is attacked

    @property
    def shown(self) -> str:
        """As printed; in parentheses where the claim does not cover the vantage."""
        if self.epsilon is None:
            return "none"
        return number(self.epsilon, 2) if self.covers else f"({number(self.epsilon, 2)})"


NOTHING = Claimed(None, False)
UNCOVERED = "in parentheses: claimed against others, not against the vantage of this row"


@dataclass(frozen=True)
class Point:
    """One attack under one configuration; a figure is ``None`` where any seed lacks it."""

    settings: tuple[str, ...]
    attack: str
    vantage: str
    claim: Claimed
    auc: Pooled
    tpr: Pooled | None
    accuracy: Pooled | None
    proved: float | None  # the mean over seeds of the lower bounds of all attacks together


def claimed(runs: Sequence[Result]) -> Claimed:
    """Return what is claimed in every one of some runs: the largest ε, none where one has none.

    Where no claim covers a run's vantage, the strongest of those that cover others is taken.
    """
    found = [_claimed(run) for run in runs]
    values = [claim.epsilon for claim in found if claim.epsilon is not None]
    if not values or len(values) < len(found):
        return NOTHING
    return Claimed(max(values), all(claim.covers for claim in found))


def point(
    settings: tuple[str, ...],
    attack: str,
    vantage: str,
    auc: Pooled,
    claim: Claimed,
    seeds: Mapping[int, Seed],
    fpr: str,
) -> Point:
    """Pool what is drawn of one row of a comparison beside its AUC and its claim."""
    known = good(seeds.values())
    rates = [rate for _, one in known if (rate := one["tpr_at_fpr"].get(fpr)) is not None]
    tpr = None
    if len(rates) == len(known):
        scores = [read_scores(seed.folder, attack) for seed, _ in known]
        own = known[0][1]["tpr_ci"].get(fpr) or rates * 2
        tpr = pool(rates, own, scores, fpr=float(fpr))
    accuracies = [
        value for seed, _ in known if (value := seed.run["utility"]["test_accuracy"]) is not None
    ]
    whole = len(accuracies) == len(known)
    bounds = [seed.run["privacy"]["epsilon_lower_bound"] for seed, _ in known]
    accuracy = pool(accuracies, accuracies * 2) if whole else None
    return Point(settings, attack, vantage, claim, auc, tpr, accuracy, mean(bounds))


def series(points: Sequence[Point]) -> list[tuple[tuple[str, ...], list[Point]]]:
    """Return the points by what else tells them apart than ε, each group by ascending ε.

    A setting is left out of a group's name where every claim goes with one value of it: such as
    the ε that was asked for, or a defence that is there or not.
    """
    ranked = sorted(points, key=lambda p: (p.claim.epsilon is None, p.claim.epsilon or 0.0))
    kept = [
        place
        for place in range(len(points[0].settings))
        if len({(p.claim.shown, p.settings[place]) for p in points})
        > len({p.claim.shown for p in points})
    ]
    several = len({p.vantage for p in points}) > 1
    found: dict[tuple[str, ...], list[Point]] = {}
    for p in ranked:
        other = [p.settings[place] for place in kept] + ([p.vantage] if several else [])
        name = *(words for words in other if words != DASH), p.attack
        found.setdefault(name, []).append(p)
    return sorted(found.items(), key=lambda item: -max(p.auc.mean for p in item[1]))


def cells(points: Sequence[Point]) -> list[list[str]]:
    """Return the printed table: series, ε, accuracy, AUC, TPR and the ε that was proved."""
    return [
        [
            " · ".join(name),
            p.claim.shown,
            _words(p.accuracy),
            _words(p.auc),
            _percents(p.tpr),
            number(p.proved, 2),
        ]
        for name, group in series(points)
        for p in group
    ]


def _claimed(run: Result) -> Claimed:
    privacy = run["privacy"]
    if (epsilon := privacy["epsilon_claimed"]) is not None:
        return Claimed(epsilon, True)
    others = [e for c in privacy.get("claims", []) if (e := c["epsilon"]) is not None]
    return Claimed(min(others), False) if others else NOTHING


def _words(pooled: Pooled | None) -> str:
    if pooled is None:
        return DASH
    if pooled.low == pooled.high:
        return number(pooled.mean)
    return f"{number(pooled.mean)} {interval((pooled.low, pooled.high))}"


def _percents(pooled: Pooled | None) -> str:
    if pooled is None:
        return DASH
    return f"{percent(pooled.mean)} [{percent(pooled.low)}, {percent(pooled.high)}]"
