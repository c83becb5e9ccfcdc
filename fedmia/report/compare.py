"""Several runs side by side: what was varied as columns, seeds pooled into rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmia.report.groups import Seed, good, group, mean
from fedmia.report.lines import Line, firsts_of, ordered, settings_of
from fedmia.report.pooling import Pooled, difference, pool, read_scores
from fedmia.report.tradeoff import NOTHING, Claimed, Point, claimed, point
from fedmia.report.wording import DASH, covers_chance, measured, table_fpr
from fedmia.results import Result


@dataclass(frozen=True)
class Row:
    """One attack under one configuration; a figure is ``None`` where any seed lacks it."""

    settings: tuple[str, ...]
    attack: str
    vantage: str
    seeds: tuple[int, ...]
    auc: Pooled | None
    tpr: float | None
    balanced_accuracy: float | None
    test_accuracy: float | None
    blind_auc: float | None  # the highest baseline of each run, averaged
    confounded: bool  # some run has a baseline whose interval does not cover 0.5
    missing: int  # seeds that were not measured
    problems: tuple[str, ...]  # and why, each reason once
    claim: Claimed = NOTHING  # of ε


@dataclass(frozen=True)
class Difference:
    """One attack under one configuration minus the same under its first, on the same records."""

    settings: tuple[str, ...]
    first: tuple[str, ...]  # the settings it is compared with
    attack: str
    vantage: str
    seeds: tuple[int, ...]  # with the same candidates on both sides
    auc: Pooled
    tpr: Pooled | None


@dataclass(frozen=True)
class Comparison:
    """``settings`` names the configuration keys that differ between rows.

    ``differences`` compare as :func:`fedmia.report.lines.firsts_of` says.
    """

    settings: tuple[str, ...]
    fpr: str
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...] = ()
    tradeoff: tuple[Point, ...] = ()  # where the rows differ in the ε that is claimed


def compare(runs: Iterable[Result], folders: Sequence[Path] | None = None) -> Comparison:
    """Pool ``runs`` that differ in nothing but the seed; one row an attack and configuration.

    A seed that was run more than once counts once, by its latest run: a repetition is no evidence.
    ``folders`` are the runs' directories, in the same order: scores that are kept there give
    intervals over seeds and records instead of over seeds alone.
    """
    listed = list(runs)
    groups = group(listed, folders)
    settings = settings_of(groups)
    fpr = table_fpr([outcome for result in listed for outcome in result["attacks"]])
    named = {
        line: tuple(dict(line.run + line.own).get(setting, DASH) for setting in settings)
        for line in groups
    }
    lines = ordered(groups)
    firsts = firsts_of(lines)
    found = [
        _difference(line, named, groups[line], firsts[line], groups[firsts[line]], fpr)
        for line in lines
        if firsts[line] != line
    ]
    rows = tuple(_row(named[line], *line[:2], groups[line], fpr) for line in lines)
    differing = len({row.claim.shown for row in rows if row.auc}) > 1
    return Comparison(
        settings,
        fpr,
        rows,
        tuple(entry for entry in found if entry is not None),
        tuple(
            point(row.settings, row.attack, row.vantage, row.auc, row.claim, groups[line], fpr)
            for row, line in zip(rows, lines, strict=True)
            if row.auc and differing
        ),
    )


def _row(
    settings: tuple[str, ...], attack: str, vantage: str, seeds: Mapping[int, Seed], fpr: str
) -> Row:
    known = good(seeds.values())
    blind = [measured(seed.run["baselines"]) for seed, _ in known]
    problems = dict.fromkeys(
        s.outcome["reason"] for s in seeds.values() if s.outcome["status"] != "ok"
    )
    auc = None
    if known:
        scores = [read_scores(seed.folder, attack) for seed, _ in known]
        auc = pool([one["auc"] for _, one in known], known[0][1]["auc_ci"], scores)
    return Row(
        settings=settings,
        attack=attack,
        vantage=vantage,
        seeds=tuple(sorted(seed.run["seed"] for seed, _ in known)),
        auc=auc,
        tpr=mean([one["tpr_at_fpr"].get(fpr) for _, one in known]),
        balanced_accuracy=mean([one["balanced_accuracy"] for _, one in known]),
        test_accuracy=mean([seed.run["utility"]["test_accuracy"] for seed, _ in known]),
        blind_auc=mean([max((b["auc"] for b in rows), default=None) for rows in blind]),
        confounded=any(not covers_chance(baseline) for rows in blind for baseline in rows),
        missing=len(seeds) - len(known),
        problems=tuple(problems),
        claim=claimed([seed.run for seed, _ in known]),
    )


def _difference(
    line: Line,
    named: Mapping[Line, tuple[str, ...]],
    here: Mapping[int, Seed],
    first: Line,
    there: Mapping[int, Seed],
    fpr: str,
) -> Difference | None:
    """Compare on seeds that asked both sides about the same records; ``None`` without one."""
    attack, vantage = line[:2]
    mine, its = _figures(here, fpr), _figures(there, fpr)
    shared = [
        seed
        for seed in sorted(set(mine) & set(its))
        if here[seed].run["candidates"]["sha256"] == there[seed].run["candidates"]["sha256"]
    ]
    scores = {
        s: (read_scores(here[s].folder, attack), read_scores(there[s].folder, attack))
        for s in shared
    }
    auc = difference(
        {seed: mine[seed][0] for seed in shared}, {seed: its[seed][0] for seed in shared}, scores
    )
    if auc is None:
        return None
    above = {seed: rate for seed in shared if (rate := mine[seed][1]) is not None}
    below = {seed: rate for seed in shared if (rate := its[seed][1]) is not None}
    known = len(above) == len(below) == len(shared)
    tpr = difference(above, below, scores, float(fpr)) if known else None
    return Difference(named[line], named[first], attack, vantage, tuple(shared), auc, tpr)


def _figures(seeds: Mapping[int, Seed], fpr: str) -> dict[int, tuple[float, float | None]]:
    """Return AUC and TPR by seed, of the seeds that were measured."""
    return {
        seed: (one["auc"], one["tpr_at_fpr"].get(fpr))
        for seed, entry in seeds.items()
        for one in measured([entry.outcome])
    }
