"""Defences side by side: what each costs, and what it leaves to attackers, those who know it too.

A run belongs to the defence that its configuration names (``defense``). Of all attacks the one with
the highest mean AUC counts, picked after the fact and so a little flattered: for each defence anew,
which is to its disadvantage, and for the runs without a defence, which is to all others' advantage.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from fedmia.report.groups import mean
from fedmia.report.lines import NOT_COMPARED, differing, flatten
from fedmia.report.pooling import Pooled, difference, pool, read_scores
from fedmia.report.tradeoff import NOTHING, Claimed, claimed
from fedmia.report.wording import measured, table_fpr
from fedmia.results import Measured, Result


class Leak(NamedTuple):
    """The strongest attack of a kind on one defence; ``tpr`` at the page's false-positive rate."""

    attack: str
    auc: Pooled
    tpr: Pooled | None


@dataclass(frozen=True)
class Defense:
    """One line of the page; a figure is ``None`` where any seed lacks it.

    ``passive`` is the strongest of the attacks that know nothing of the defence, ``adaptive`` of
    those that do, ``None`` where none was run. Changes are paired: those of the strongest of both
    against the strongest without a defence (``baseline``, the line with the same vantage).
    """

    name: str
    vantage: str
    seeds: tuple[int, ...]
    accuracy: Pooled | None
    passive: Leak | None
    adaptive: Leak | None
    bytes: float | None  # of a client's answer in a round
    seconds: float | None  # of a round
    claim: Claimed = NOTHING
    baseline: str | None = None
    auc_change: Pooled | None = None
    tpr_change: Pooled | None = None
    accuracy_change: Pooled | None = None
    front: bool = False  # at its vantage no other has both more accuracy and less leakage
    problem: str = ""  # why nothing was measured

    @property
    def strongest(self) -> Leak | None:
        """The stronger of both."""
        found = [leak for leak in (self.passive, self.adaptive) if leak]
        return max(found, key=lambda leak: leak.auc.mean, default=None)


@dataclass(frozen=True)
class Page:
    """``fpr`` is the false-positive rate of every true-positive rate."""

    fpr: str
    rows: tuple[Defense, ...]


Seeds = dict[int, tuple[Result, Path | None]]


def page(runs: Iterable[Result], folders: Sequence[Path] | None = None) -> Page | None:
    """Return the page of the runs that name a defence; ``None`` unless they name two.

    Of a seed that was run twice the latest run counts.

    Parameters
    ----------
    runs
        Results.
    folders
        Their directories, where scores may be kept.
    """
    listed = list(runs)
    places: Sequence[Path | None] = [None] * len(listed) if folders is None else folders
    groups = _groups(zip(listed, places, strict=True))
    if len(groups) < 2:
        return None
    outcomes = [o for run, _ in _all(groups) for o in run["attacks"]]
    fpr = table_fpr(outcomes)
    rows = [_row(name, seeds, fpr) for name, seeds in groups.items()]
    bases = {
        row.vantage: row.name
        for row in reversed(rows)
        if all(_undefended(run) for run, _ in groups[row.name].values())
    }
    by_name = {row.name: row for row in rows}
    found = []
    for row in rows:
        base = bases.get(row.vantage)
        if base is not None and base != row.name:
            row = _compared(row, groups[row.name], by_name[base], groups[base], fpr)
        found.append(row)
    front = pareto(found)
    return Page(fpr, tuple(replace(row, front=row.name in front) for row in found))


def _all(groups: Mapping[str, Seeds]) -> list[tuple[Result, Path | None]]:
    return [entry for seeds in groups.values() for entry in seeds.values()]


def pareto(rows: Iterable[Defense]) -> set[str]:
    """Return the names of those that no other beats in accuracy and leakage, by their means.

    What one vantage sees says nothing of another: each has a front of its own.
    """
    points = {
        row.name: (row.vantage, row.accuracy.mean, -leak.auc.mean)
        for row in rows
        if row.accuracy and (leak := row.strongest)
    }
    return {
        name
        for name, (place, a, b) in points.items()
        if not any(
            there == place and x >= a and y >= b and (x, y) != (a, b)
            for there, x, y in points.values()
        )
    }


def _groups(runs: Iterable[tuple[Result, Path | None]]) -> dict[str, Seeds]:
    """Return the runs by defence and seed; what one name stands for apart is told apart."""
    latest = sorted(runs, key=lambda entry: entry[0]["created"])
    named = [(str(run["config"].get("defense") or ""), run, folder) for run, folder in latest]
    found: dict[str, Seeds] = {}
    for name in sorted({name for name, _, _ in named if name}, key=lambda n: (n != "none", n)):
        own = [(run, folder) for label, run, folder in named if label == name]
        flat = [_settings(run) for run, _ in own]
        keys = differing([dict(c) for c in dict.fromkeys(tuple(sorted(f.items())) for f in flat)])
        for (run, folder), settings in zip(own, flat, strict=True):
            label = " · ".join([name, *(f"{key}={settings.get(key)}" for key in keys)])
            found.setdefault(label, {})[run["seed"]] = run, folder
    return found


def _settings(run: Result) -> dict[str, str]:
    """Return what makes a run another experiment; a seed that repeats the run's does not."""
    kept = {k: v for k, v in run["config"].items() if k not in NOT_COMPARED}
    flat, seed = flatten(kept), str(run["seed"])
    return {k: v for k, v in flat.items() if not (k.endswith(".seed") and v == seed)}


def _undefended(run: Result) -> bool:
    """Whether clients' updates are averaged as they are, and the model is shown as it is."""
    config = run["config"]
    strategy = str(config["strategy"].get("_target_", ""))
    return (
        strategy.endswith(".FedAvg")
        and not config.get("client", {}).get("defenses")
        and not config.get("release")
    )


def _row(name: str, seeds: Seeds, fpr: str) -> Defense:
    runs = [run for run, _ in seeds.values()]
    accuracies = [a for run in runs if (a := run["utility"]["test_accuracy"]) is not None]
    whole = len(accuracies) == len(runs)
    reasons = [o["reason"] for run in runs for o in run["attacks"] if o["status"] != "ok"]
    passive = _strongest(seeds, fpr, adaptive=False)
    return Defense(
        name=name,
        vantage=runs[0]["attacks"][0]["vantage"],
        seeds=tuple(sorted(seeds)),
        accuracy=pool(accuracies, accuracies * 2) if whole else None,
        passive=passive,
        adaptive=_strongest(seeds, fpr, adaptive=True),
        bytes=mean([_bytes(run) for run in runs]),
        seconds=mean([run["timing"]["per_round_s"] for run in runs]),
        claim=claimed(runs),
        problem="" if passive else next(iter(reasons), "no attack was measured"),
    )


def _strongest(seeds: Seeds, fpr: str, adaptive: bool) -> Leak | None:
    """Return the attack with the highest mean AUC of those measured in every seed."""
    by_attack: dict[str, list[Measured]] = {}
    for run, _ in seeds.values():
        for one in measured(run["attacks"]):
            if bool(one.get("adaptive", False)) == adaptive:
                by_attack.setdefault(one["name"], []).append(one)
    whole = {name: found for name, found in by_attack.items() if len(found) == len(seeds)}
    if not whole:
        return None
    best = max(whole, key=lambda name: sum(one["auc"] for one in whole[name]))
    scores = [read_scores(folder, best) for _, folder in seeds.values()]
    found = whole[best]
    auc = pool([one["auc"] for one in found], found[0]["auc_ci"], scores)
    rates = [rate for one in found if (rate := one["tpr_at_fpr"].get(fpr)) is not None]
    if len(rates) < len(found):
        return Leak(best, auc, None)
    own = found[0]["tpr_ci"].get(fpr) or rates * 2
    return Leak(best, auc, pool(rates, own, scores, fpr=float(fpr)))


def _compared(row: Defense, here: Seeds, base: Defense, there: Seeds, fpr: str) -> Defense:
    """Add the paired changes over the seeds that both sides asked about the same records."""
    mine, its = row.strongest, base.strongest
    row = replace(row, baseline=base.name)
    shared = [
        seed
        for seed in sorted(set(here) & set(there))
        if here[seed][0]["candidates"]["sha256"] == there[seed][0]["candidates"]["sha256"]
    ]
    change = difference(_accuracies(here, shared), _accuracies(there, shared), {})
    row = replace(row, accuracy_change=change)
    if mine is None or its is None:
        return row
    scores = {
        seed: (read_scores(here[seed][1], mine.attack), read_scores(there[seed][1], its.attack))
        for seed in shared
    }
    ours, theirs = _outcomes(here, mine.attack, shared), _outcomes(there, its.attack, shared)
    aucs = [{seed: one["auc"] for seed, one in side.items()} for side in (ours, theirs)]
    row = replace(row, auc_change=difference(aucs[0], aucs[1], scores))
    rates = [
        {seed: r for seed, one in side.items() if (r := one["tpr_at_fpr"].get(fpr)) is not None}
        for side in (ours, theirs)
    ]
    if not all(len(side) == len(shared) for side in rates):
        return row
    return replace(row, tpr_change=difference(rates[0], rates[1], scores, float(fpr)))


def _accuracies(seeds: Seeds, shared: Sequence[int]) -> dict[int, float]:
    known = {seed: seeds[seed][0]["utility"]["test_accuracy"] for seed in shared}
    return {seed: value for seed, value in known.items() if value is not None}


def _outcomes(seeds: Seeds, attack: str, shared: Sequence[int]) -> dict[int, Measured]:
    """Return what was measured of one attack, by seed."""
    return {
        seed: one
        for seed in shared
        for one in measured(seeds[seed][0]["attacks"])
        if one["name"] == attack
    }


def _bytes(run: Result) -> float | None:
    said = run.get("communication")
    return said["bytes_per_client_round"] if said else None
