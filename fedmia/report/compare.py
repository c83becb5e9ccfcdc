"""Several runs side by side: what was varied as columns, seeds pooled into rows."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fedmia.report.pooling import Pooled, difference, pool, read_scores
from fedmia.report.wording import DASH, covers_chance, measured, option, table_fpr
from fedmia.results import NOT_SCIENCE, Outcome, Result

NOT_COMPARED = ("seed", *NOT_SCIENCE)
"""Keys that do not make two runs different experiments."""


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


@dataclass(frozen=True)
class Difference:
    """One attack under one configuration minus the same under the first, on the same records."""

    settings: tuple[str, ...]
    attack: str
    vantage: str
    seeds: tuple[int, ...]  # with the same candidates on both sides
    auc: Pooled
    tpr: Pooled | None


@dataclass(frozen=True)
class Comparison:
    """``settings`` names the configuration keys that differ between rows.

    ``differences`` compare with the configuration of the first row.
    """

    settings: tuple[str, ...]
    fpr: str
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...] = ()


class Seed(NamedTuple):
    """What one run says about one attack; ``folder`` may hold its scores."""

    run: Result
    outcome: Outcome
    folder: Path | None


def compare(runs: Iterable[Result], folders: Sequence[Path] | None = None) -> Comparison:
    """Pool ``runs`` that differ in nothing but the seed; one row an attack and configuration.

    A seed that was run more than once counts once, by its latest run: a repetition is no evidence.
    ``folders`` are the runs' directories, in the same order: scores that are kept there give
    intervals over seeds and records instead of over seeds alone.
    """
    groups: dict[tuple[str, str, str], dict[int, Seed]] = {}
    configs: dict[str, dict[str, str]] = {}
    every: list[Outcome] = []
    listed = list(runs)
    places: Sequence[Path | None] = [None] * len(listed) if folders is None else folders
    paired = zip(listed, places, strict=True)
    for result, folder in sorted(paired, key=lambda pair: pair[0]["created"]):
        every += result["attacks"]
        for outcome in result["attacks"]:
            config = flatten(relevant(result["config"], outcome["name"]))
            identity = json.dumps(config, sort_keys=True)
            configs[identity] = config
            group = groups.setdefault((outcome["name"], outcome["vantage"], identity), {})
            group[result["seed"]] = Seed(result, outcome, folder)
    settings = differing(list(configs.values()))
    fpr = table_fpr(every)
    named = {
        key: tuple(configs[key[2]].get(setting, DASH) for setting in settings) for key in groups
    }
    order = list(dict.fromkeys(named.values()))
    keys = sorted(groups, key=lambda key: order.index(named[key]))
    first = {key[:2]: groups[key] for key in keys if named[key] == order[0]}
    found = [
        _difference(named[key], *key[:2], groups[key], first[key[:2]], fpr)
        for key in keys
        if named[key] != order[0] and key[:2] in first
    ]
    return Comparison(
        settings,
        fpr,
        tuple(_row(named[key], *key[:2], groups[key], fpr) for key in keys),
        tuple(entry for entry in found if entry is not None),
    )


def relevant(config: Mapping[str, Any], attack: str) -> dict[str, Any]:
    """Return the part of a configuration that the row of one attack depends on."""
    kept = {key: value for key, value in config.items() if key not in NOT_COMPARED}
    attacks = kept.get("attack")
    if isinstance(attacks, Mapping) and "_target_" not in attacks:
        kept["attack"] = attacks.get(attack, {})
    return kept


def flatten(config: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Return ``{"train.lr": "0.1"}``: dotted keys, printed values, parts by their class name."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if key == "_target_":
            flat[path or key] = str(value).rpartition(".")[2]
        elif isinstance(value, Mapping):
            flat |= flatten(value, f"{path}.{key}" if path else key)
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            dotted = f"{path}.{key}" if path else key
            flat[dotted] = option(value)
            flat |= flatten({str(i): v for i, v in enumerate(value)}, dotted)
        else:
            flat[f"{path}.{key}" if path else key] = option(value)
    return flat


def differing(configs: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Return the keys that tell ``configs`` apart, in the order they appear.

    A key that only some of them have, always with one value, belongs to a part that is named by
    another key already; it is shown only where the rest does not tell the configurations apart.
    """
    keys = list(dict.fromkeys(key for config in configs for key in config))
    changing = [key for key in keys if len({c[key] for c in configs if key in c}) > 1]
    if len({tuple(c.get(key) for key in changing) for c in configs}) < len(configs):
        changing = [key for key in keys if len({c.get(key) for c in configs}) > 1]
    return tuple(changing)


def _row(
    settings: tuple[str, ...], attack: str, vantage: str, seeds: Mapping[int, Seed], fpr: str
) -> Row:
    good = [(seed, one) for seed in seeds.values() for one in measured([seed.outcome])]
    blind = [measured(seed.run["baselines"]) for seed, _ in good]
    problems = dict.fromkeys(
        s.outcome["reason"] for s in seeds.values() if s.outcome["status"] != "ok"
    )
    auc = None
    if good:
        scores = [read_scores(seed.folder, attack) for seed, _ in good]
        auc = pool([one["auc"] for _, one in good], good[0][1]["auc_ci"], scores)
    return Row(
        settings=settings,
        attack=attack,
        vantage=vantage,
        seeds=tuple(sorted(seed.run["seed"] for seed, _ in good)),
        auc=auc,
        tpr=_mean([one["tpr_at_fpr"].get(fpr) for _, one in good]),
        balanced_accuracy=_mean([one["balanced_accuracy"] for _, one in good]),
        test_accuracy=_mean([seed.run["utility"]["test_accuracy"] for seed, _ in good]),
        blind_auc=_mean([max((b["auc"] for b in group), default=None) for group in blind]),
        confounded=any(not covers_chance(baseline) for group in blind for baseline in group),
        missing=len(seeds) - len(good),
        problems=tuple(problems),
    )


def _difference(
    settings: tuple[str, ...],
    attack: str,
    vantage: str,
    here: Mapping[int, Seed],
    there: Mapping[int, Seed],
    fpr: str,
) -> Difference | None:
    """Compare on seeds that asked both sides about the same records; ``None`` without one."""
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
    return Difference(settings, attack, vantage, tuple(shared), auc, tpr)


def _figures(seeds: Mapping[int, Seed], fpr: str) -> dict[int, tuple[float, float | None]]:
    """Return AUC and TPR by seed, of the seeds that were measured."""
    return {
        seed: (one["auc"], one["tpr_at_fpr"].get(fpr))
        for seed, entry in seeds.items()
        for one in measured([entry.outcome])
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None
