"""What a result says, in words and in figures as they are printed everywhere."""

from collections.abc import Mapping, Sequence

from fedmia import communication
from fedmia.guards import surprise
from fedmia.results import Measured, Outcome, Result
from fedmia.settings import informed

DASH = "–"
"""Printed where there is no number; never a zero."""
CONFIDENCE = 0.95
"""Of the intervals of a run whose configuration does not say."""


def number(value: float | None, digits: int = 3) -> str:
    """Return ``value`` with fixed digits, a dash for ``None``."""
    return DASH if value is None else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as ``12.3%``, a dash for ``None``."""
    return DASH if value is None else f"{value:.{digits}%}"


def interval(bounds: Sequence[float] | None, digits: int = 3) -> str:
    """Return ``[low, high]``, a dash for ``None``."""
    if bounds is None:
        return DASH
    return f"[{number(bounds[0], digits)}, {number(bounds[1], digits)}]"


def seconds(value: float | None) -> str:
    """Return a duration with a unit, a dash for ``None``."""
    return DASH if value is None else f"{value:.2f} s"


def tpr_label(fpr: str) -> str:
    """Return the column name of ``tpr_at_fpr[fpr]``, e.g. ``TPR@1%FPR``."""
    return f"TPR@{float(fpr) * 100:g}%FPR"


def measured(outcomes: Sequence[Outcome]) -> list[Measured]:
    """Return the outcomes that have numbers."""
    return [outcome for outcome in outcomes if outcome["status"] == "ok"]


def ranked(outcomes: Sequence[Outcome]) -> list[Measured]:
    """Return the outcomes that have numbers, the highest AUC first."""
    return sorted(measured(outcomes), key=lambda outcome: -outcome["auc"])


def reasons(outcomes: Sequence[Outcome], status: str) -> list[tuple[str, list[str]]]:
    """Return ``(reason, names)`` of the outcomes with this status, each reason once."""
    found: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome["status"] != "ok" and outcome["status"] == status:
            found.setdefault(outcome["reason"], []).append(outcome["name"])
    return list(found.items())


def low_fprs(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the false-positive rates that were asked for, largest first."""
    rates = {fpr for outcome in measured(outcomes) for fpr in outcome["tpr_at_fpr"]}
    return sorted(rates, key=float, reverse=True)


def table_fpr(outcomes: Sequence[Outcome]) -> str:
    """Return the one rate that a narrow table shows: 1% unless it was not asked for."""
    rates = low_fprs(outcomes)
    return "0.01" if "0.01" in rates or not rates else rates[0]


def covers_chance(outcome: Measured) -> bool:
    """Return whether the interval of the AUC contains one half."""
    low, high = outcome["auc_ci"]
    return low <= 0.5 <= high


def worse_than_chance(outcomes: Sequence[Outcome]) -> str | None:
    """Return a note on rows whose interval is wholly below one half, ``None`` without any."""
    below = [row["name"] for row in measured(outcomes) if row["auc_ci"][1] < 0.5]
    return f"worse than chance: {', '.join(below)}: is the direction right?" if below else None


def adaptive(outcomes: Sequence[Outcome]) -> str | None:
    """Return what rows of attackers that know the defences are, ``None`` without any."""
    there = any(row.get("adaptive") for row in outcomes)
    return f"…{informed('')}: the attacker knows the defences" if there else None


def strongest(result: Result) -> Measured | None:
    """Return the attack with the highest AUC, ``None`` where none was measured."""
    return max(measured(result["attacks"]), key=lambda a: a["auc"], default=None)


def beyond_chance(result: Result) -> list[Measured]:
    """Return the attacks above one half that their number does not explain, highest AUC first.

    Each is held to the level of the run's intervals divided by the number of attacks (Bonferroni):
    under chance alone, any is returned in at most 5% of runs with 95% intervals.
    """
    settings = result["config"].get("metrics")
    named = settings.get("confidence") if isinstance(settings, Mapping) else None
    confidence = CONFIDENCE if named is None else float(named)
    rows = ranked(result["attacks"])
    return [
        row
        for row in rows
        if row["auc_ci"][0] > 0.5
        and surprise(row["auc"], row["auc_ci"], confidence) < (1 - confidence) / len(rows)
    ]


def headline(result: Result) -> str:
    """Return the finding in one or two sentences; a leak is what :func:`beyond_chance` finds."""
    best = strongest(result)
    if result["status"] == "failed":
        start = f"The run failed: {result['reason'] or 'no reason was recorded'}. "
    else:
        start = ""
    if best is None:
        return start + "No attack was measured."
    count = _counted(len(measured(result["attacks"])), "attack")
    found = beyond_chance(result)
    leak = bool(found) and not result["candidates"]["null_run"]
    surest = best in found
    if leak and not surest:
        best = found[0]
    figures = f"AUC {number(best['auc'])} {interval(best['auc_ci'])}"
    who = f"{best['name']} (vantage: {best['vantage']})"
    if result["candidates"]["null_run"]:
        return start + (
            "This is a null run: nobody trained on the records called members, so every attack "
            f"should be at chance. The highest of {count} is {who} with "
            f"{figures}."
        )
    if not leak:
        above = best["auc_ci"][0] > 0.5
        picked = f", no further than chance takes the best of {count}" if above else ""
        return start + (
            f"No attack could be told from guessing. The highest of {count} is {who} with "
            f"{figures}, where 0.5 is a coin toss{picked}."
        )
    strength = "strongest" if surest else "strongest that chance does not explain"
    return start + (
        f"Membership leaks. The {strength} of {count}, {who}, tells members from held-out records "
        f"with {figures}, where 0.5 is a coin toss."
    )


def warnings(result: Result) -> list[str]:
    """Return what stands against reading the AUCs as leakage; empty where nothing does."""
    found = []
    baselines = measured(result["baselines"])
    off = [b for b in baselines if not covers_chance(b)]
    if off:
        names = ", ".join(f"{b['name']} {number(b['auc'])} {interval(b['auc_ci'])}" for b in off)
        found.append(
            "The attack AUCs are confounded. Members and held-out records differ even to somebody "
            f"who never saw the trained model: {names}. Read an attack only by what it adds to "
            "that."
        )
    silent = [b for b in result["baselines"] if b["status"] != "ok"]
    if silent or not baselines:
        names = ", ".join(b["name"] for b in silent) or "none was run"
        found.append(
            f"Blind baselines without a number ({names}): a difference between the populations "
            "that has nothing to do with training cannot be ruled out."
        )
    if result["candidates"]["null_run"]:
        moved = [a["name"] for a in measured(result["attacks"]) if not covers_chance(a)]
        if moved:
            found.append(
                "Null run, yet the interval does not cover 0.5 for: " + ", ".join(moved) + "."
            )
    found += [
        f"The guard “{guard['name']}” failed: {guard['detail']}."
        for guard in result.get("guards", [])
        if guard["status"] == "fail" and guard["name"] not in ("blind baselines", "null run")
    ]
    return found


def guards(result: Result) -> str | None:
    """Return how many guards passed, and which did not; ``None`` for a result without guards."""
    names: dict[str, list[str]] = {"fail": [], "warn": [], "pass": [], "info": []}
    for guard in result.get("guards", []):
        names[guard["status"]].append(guard["name"])
    said = [
        f"{len(group)} {status}" + (f" ({', '.join(group)})" if status in ("fail", "warn") else "")
        for status, group in names.items()
        if group
    ]
    return ", ".join(said) or None


def comparison_warnings(runs: Sequence[Result]) -> list[str]:
    """Return how many of several runs must be read with care; their own reports say why."""
    cautioned = sum(bool(warnings(run)) for run in runs)
    failed = sum(run["status"] == "failed" for run in runs)
    found = []
    if cautioned:
        found.append(
            f"{cautioned} of {_counted(len(runs), 'run')} have blind baselines off 0.5 or none at "
            "all: their attack AUCs may be confounded."
        )
    if failed:
        found.append(f"{failed} of {_counted(len(runs), 'run')} failed.")
    return found


def summary(result: Result) -> list[tuple[str, str]]:
    """Return ``(what, value)`` lines: utility, populations, ε, notes and faults."""
    utility, counts, privacy = result["utility"], result["candidates"], result["privacy"]
    lines = [
        (
            "utility",
            f"test accuracy {number(utility['test_accuracy'])}, "
            f"training accuracy {number(utility['train_accuracy'])}",
        ),
        (
            "candidates",
            f"{_counted(counts['members'], 'member')}, {counts['nonmembers']} held out, "
            f"{counts['other_members']} of other clients, {counts['auxiliary']} auxiliary"
            + (" (null run)" if counts["null_run"] else ""),
        ),
        ("privacy", epsilon(result)),
    ]
    if (counted := guards(result)) is not None:
        lines.append(("guards", counted))
    if sent := result.get("communication"):
        lines.append(("sent", communication.line(sent)))
    lines += [("note", note) for note in result["notes"] if note != privacy.get("alarm")]
    lines += [("fault", fault) for fault in faults(result)]
    return lines


def epsilon(result: Result) -> str:
    """Return the empirical bound with the highest value that this many records could show."""
    privacy = result["privacy"]
    bound, ceiling = privacy["epsilon_lower_bound"], privacy["epsilon_ceiling"]
    if bound is None:
        return "no lower bound on ε was measured"
    words = f"ε ≥ {number(bound, 2)}"
    if privacy["confidence"] is not None:
        words += f" with {privacy['confidence'] * 100:g}% confidence"
    if ceiling is not None:
        words += f" (a perfect attack on this many records would show {number(ceiling, 2)})"
    return words


def faults(result: Result) -> list[str]:
    """Return one line a fault that the run survived; a client's own reason may name both too."""
    return [
        f"round {fault['round']}"
        + ("" if fault["client"] is None else f", client {fault['client']}")
        + ": "
        + fault["reason"].removeprefix(f"client {fault['client']}, round {fault['round']}: ")
        for fault in result["faults"]
    ]


def setup(config: Mapping[str, object]) -> list[str]:
    """Return the few words that tell one experiment from another, as far as they are there."""
    groups = ("dataset", "partition", "model", "strategy", "client")
    words = [option(config[group]) for group in groups if config.get(group)]
    words += [
        f"{config[key]} {name}"
        for key, name in (("num_clients", "clients"), ("num_rounds", "rounds"))
        if key in config
    ]
    return words


def option(value: object) -> str:
    """Return the short name of a configured part: its class where it names one."""
    if isinstance(value, Mapping):
        target = value.get("_target_")
        return str(target).rpartition(".")[2] if target else ", ".join(map(str, value))
    if isinstance(value, list):
        return "[" + ", ".join(option(item) for item in value) + "]"
    return DASH if value is None else str(value)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
