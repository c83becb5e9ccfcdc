"""Several runs side by side: what was varied as columns, seeds pooled into rows."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fedmia.report.wording import DASH, covers_chance, measured, option, table_fpr
from fedmia.results import NOT_SCIENCE, Outcome, Result

CONFIDENCE = 0.95
NOT_COMPARED = ("seed", *NOT_SCIENCE)
"""Keys that do not make two runs different experiments."""


@dataclass(frozen=True)
class Pooled:
    """A mean over seeds and its spread; ``low`` and ``high`` are what ``kind`` says.

    ``run``: the interval of the only run. ``range``: smallest and largest of two seeds. ``t``: the
    95% Student interval of the mean over three or more seeds, cut to [0, 1].
    """

    mean: float
    low: float
    high: float
    kind: Literal["run", "range", "t"]


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
class Comparison:
    """``settings`` names the configuration keys that differ between rows."""

    settings: tuple[str, ...]
    fpr: str
    rows: tuple[Row, ...]


def compare(runs: Iterable[Result]) -> Comparison:
    """Pool ``runs`` that differ in nothing but the seed; one row an attack and configuration.

    A seed that was run more than once counts once, by its latest run: a repetition is no evidence.
    """
    groups: dict[tuple[str, str, str], dict[int, tuple[Result, Outcome]]] = {}
    configs: dict[str, dict[str, str]] = {}
    every: list[Outcome] = []
    for result in sorted(runs, key=lambda run: run["created"]):
        every += result["attacks"]
        for outcome in result["attacks"]:
            config = flatten(relevant(result["config"], outcome["name"]))
            identity = json.dumps(config, sort_keys=True)
            configs[identity] = config
            group = groups.setdefault((outcome["name"], outcome["vantage"], identity), {})
            group[result["seed"]] = (result, outcome)
    settings = differing(list(configs.values()))
    fpr = table_fpr(every)
    rows = [
        _row(tuple(configs[identity].get(key, DASH) for key in settings), name, vantage, seeds, fpr)
        for (name, vantage, identity), seeds in groups.items()
    ]
    order = list(dict.fromkeys(row.settings for row in rows))
    return Comparison(settings, fpr, tuple(sorted(rows, key=lambda row: order.index(row.settings))))


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


def pool(values: Sequence[float], own: Sequence[float]) -> Pooled:
    """Return the mean of one value a seed; ``own`` is the interval of the run if it is alone."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Pooled(mean, own[0], own[1], "run")
    if len(values) == 2:
        return Pooled(mean, min(values), max(values), "range")
    from scipy import stats

    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    half = quantile * math.sqrt(variance / len(values))
    return Pooled(mean, max(0.0, mean - half), min(1.0, mean + half), "t")


def _row(
    settings: tuple[str, ...],
    attack: str,
    vantage: str,
    seeds: Mapping[int, tuple[Result, Outcome]],
    fpr: str,
) -> Row:
    good = [(run, one) for run, outcome in seeds.values() for one in measured([outcome])]
    blind = [measured(run["baselines"]) for run, _ in good]
    problems = dict.fromkeys(o["reason"] for _, o in seeds.values() if o["status"] != "ok")
    return Row(
        settings=settings,
        attack=attack,
        vantage=vantage,
        seeds=tuple(sorted(run["seed"] for run, _ in good)),
        auc=pool([one["auc"] for _, one in good], good[0][1]["auc_ci"]) if good else None,
        tpr=_mean([one["tpr_at_fpr"].get(fpr) for _, one in good]),
        balanced_accuracy=_mean([one["balanced_accuracy"] for _, one in good]),
        test_accuracy=_mean([run["utility"]["test_accuracy"] for run, _ in good]),
        blind_auc=_mean([max((b["auc"] for b in group), default=None) for group in blind]),
        confounded=any(not covers_chance(baseline) for group in blind for baseline in group),
        missing=len(seeds) - len(good),
        problems=tuple(problems),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None
