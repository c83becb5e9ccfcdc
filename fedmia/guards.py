"""What would make the figures of a run mean something else, checked one by one.

A guard passes, fails (do not use the figures as they stand), warns (use them with that in mind) or
informs. None of them knows more than the result that is being written.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import betabinom, norm

from fedmia.masked import LeakCheck, judged
from fedmia.metrics import ROUNDING
from fedmia.results import Guard, Measured, Outcome, Verdict

ENOUGH_SEEDS = 5
NOMINAL = "0.01"
"""The false-positive rate at which calibration and precision are judged."""

_LEVEL = 0.05


def check(
    attacks: Sequence[Outcome],
    baselines: Sequence[Outcome],
    *,
    candidates_sha256: str,
    shared: int,
    repeated: int,
    null_run: bool,
    test_accuracy: float | None,
    defences: Sequence[str] = (),
    adaptive: Sequence[str] = (),
    selects: Mapping[str, str] | None = None,
    epsilon_claimed: float | None = None,
    epsilon_lower_bound: float | None = None,
    unclaimed: str = "no ε is claimed",
    seeds: int = 1,
    confidence: float = 0.95,
    leak_check: LeakCheck | None = None,
    clip_astray: str | None = None,
) -> list[Guard]:
    """Return the guards of one run, in the order in which they should be read.

    Parameters
    ----------
    attacks, baselines
        The rows of the result.
    candidates_sha256
        Hash of the records that every attack was asked about, in their order.
    shared
        Candidates that nobody trained on by name and yet are in some client's training data.
    repeated
        Candidates that repeat another one (:func:`repeats`).
    null_run
        Whether the so-called members were held out as well.
    test_accuracy
        Of the model that this very run trained; ``None`` where it was not measured.
    defences
        Names of the defences in place, on the clients and in the strategy.
    adaptive
        Those of them that some attack of the run was told about and adapts to.
    selects
        For each attack that picks a round, a layer or a setting: what it picks, and by what.
    epsilon_claimed, epsilon_lower_bound, unclaimed
        What is promised about replacing one record, what was proved of it, why nothing is promised.
    seeds
        How many seeds the figures come from.
    confidence
        Coverage of the rows' intervals.
    leak_check
        What the masked words of the transcript look like; ``None`` where there are none.
    clip_astray
        What is wrong with an adaptive clip, in a line; empty if nothing, ``None`` without one.
    """
    attacked = [row for row in attacks if row["status"] == "ok"]
    blind = [row for row in baselines if row["status"] == "ok"]
    return [
        _guard("fixed candidates", "pass", f"one list for all attacks, {candidates_sha256[:12]}"),
        _disjoint(shared, repeated),
        _blind(baselines, blind, confidence),
        _labels(attacked),
        _populations(attacked),
        _calibration(attacked),
        _resolution(attacked),
        _null(attacked, confidence) if null_run else _guard("null run", "info", "not one"),
        _direction(attacked, confidence),
        _precision(attacked),
        _selection(attacked, selects or {}),
        _transmitted(defences),
        *([_guard("masked words", *judged(leak_check))] if leak_check else []),
        *([] if clip_astray is None else [_clip(clip_astray)]),
        _adaptive(defences, adaptive),
        _utility(test_accuracy),
        _seeds(seeds),
        _accountant(epsilon_claimed, epsilon_lower_bound, unclaimed),
    ]


def repeats(x: NDArray[Any]) -> int:
    """Return how many of the records ``x`` (n, ...) have the same features as one before them."""
    return len(x) - len({record.tobytes() for record in np.ascontiguousarray(x)})


def surprise(auc: float, interval: Sequence[float], confidence: float) -> float:
    """Return the two-sided p-value of an AUC of one half, read off its interval (logit scale).

    1 where the interval has no width around one half, 0 where it excludes it without any width.
    """
    low, centre, high = logit(np.clip([interval[0], auc, interval[1]], 1e-12, 1 - 1e-12))
    error = (high - low) / (2 * norm.ppf((1 + confidence) / 2))
    if error == 0:
        return float(centre == 0)
    return float(2 * norm.sf(abs(centre) / error))


def _guard(name: str, status: Verdict, detail: str) -> Guard:
    return {"name": name, "status": status, "detail": detail}


def _disjoint(shared: int, repeated: int) -> Guard:
    if shared or repeated:
        detail = f"{shared} held-out candidates were trained on, {repeated} repeat another one"
        return _guard("disjoint", "fail", detail)
    return _guard("disjoint", "pass", "no held-out record was trained on, none repeats another")


def _blind(asked: Sequence[Outcome], rows: Sequence[Measured], confidence: float) -> Guard:
    name = "blind baselines"
    silent = [row["name"] for row in asked if row["status"] != "ok"]
    if silent or not rows:
        return _guard(name, "warn", f"without a number: {', '.join(silent) or 'none was run'}")
    off = _off(rows)
    if not off:
        return _guard(name, "pass", f"the intervals of {_names(rows)} cover 0.5")
    certain = _least(rows, confidence) < (1 - confidence) / len(rows)
    figures = ", ".join(f"{row['name']} {row['auc']:.3f}" for row in off)
    said = f"off 0.5: {figures}; {_explained(certain, len(rows), 'baselines')}"
    return _guard(name, "fail" if certain else "warn", said)


def _labels(rows: Sequence[Measured]) -> Guard:
    name = "label-matched AUC"
    gaps = [(r["auc"] - m, r, m) for r in rows if (m := r["auc_label_matched"]) is not None]
    if not gaps:
        return _guard(name, "info", "no attack has one")
    # Scores that are higher for some labels only hide membership: what counts is what labels add.
    _, row, matched = max(gaps, key=lambda item: item[0])
    owed = [r["name"] for _, r, m in gaps if m < r["auc_ci"][0]]
    detail = f"largest drop {row['auc']:.3f} to {matched:.3f} ({row['name']})"
    if owed:
        return _guard(name, "warn", f"{detail}; below the AUC's interval: {', '.join(owed)}")
    return _guard(name, "pass", detail)


def _populations(rows: Sequence[Measured]) -> Guard:
    name = "populations apart"
    both = sum(row["other_members"] is not None for row in rows)
    if not both:
        return _guard(name, "info", "held-out records only: no target has other clients' members")
    return _guard(name, "pass", f"held out in the headline, other clients' members apart ({both})")


def _calibration(rows: Sequence[Measured]) -> Guard:
    name, nominal = "calibration apart", float(NOMINAL)
    found = [(fpr, r) for r in rows if (fpr := r.get("achieved_fpr", {}).get(NOMINAL)) is not None]
    if not found:
        return _guard(name, "info", f"too few held-out records for a nominal FPR of {nominal:.0%}")
    worst, row = max(found, key=lambda item: item[0])
    half = round(0.5 / row["min_fpr"])
    allowed = int(nominal * half + ROUNDING)
    # how many of one half exceed a threshold that so many of the other half exceed
    chance = betabinom(half, allowed + 1, half - allowed).ppf(1 - _LEVEL / len(found)) / half
    detail = f"nominal FPR {nominal:.0%}, achieved at most {worst:.2%} ({row['name']})"
    if worst <= chance:
        return _guard(name, "pass", f"{detail}, no more than chance among {len(found)} attacks")
    return _guard(name, "warn", f"{detail}; chance explains {chance:.2%}")


def _resolution(rows: Sequence[Measured]) -> Guard:
    name = "minimum FPR"
    known = [(row, least) for row in rows if (least := row.get("min_fpr")) is not None]
    if not known:
        return _guard(name, "info", "no attack has one")
    least = max(value for _, value in known)
    below = sorted({f for row, _ in known for f in row["tpr_at_fpr"] if float(f) < least - 1e-9})
    told = {
        row["name"]
        for row, value in known
        for fpr, rate in row["tpr_at_fpr"].items()
        if rate is not None and float(fpr) < value - 1e-9
    }
    detail = f"1/N = {least:.2%}"
    if told:
        return _guard(name, "fail", f"{detail}, and rates below it of {', '.join(sorted(told))}")
    if below:
        rates = ", ".join(f"{float(fpr) * 100:g}%" for fpr in below)
        detail += f"; no rate is given at {rates}"
    return _guard(name, "pass", detail)


def _null(rows: Sequence[Measured], confidence: float) -> Guard:
    name, off = "null run", _off(rows)
    if not rows:
        return _guard(name, "warn", "no attack was measured")
    if not off:
        return _guard(name, "pass", f"all {len(rows)} intervals cover 0.5")
    certain = _least(rows, confidence) < (1 - confidence) / len(rows)
    said = f"off 0.5: {_names(off)}; {_explained(certain, len(rows), 'attacks')} (Bonferroni)"
    return _guard(name, "fail" if certain else "pass", said)


def _direction(rows: Sequence[Measured], confidence: float) -> Guard:
    name, below = "direction", [row for row in rows if row["auc_ci"][1] < 0.5]
    if not below:
        return _guard(name, "pass", "no interval is wholly below 0.5")
    certain = _least(below, confidence) < (1 - confidence) / len(rows)
    said = f"worse than chance: {_names(below)}; {_explained(certain, len(rows), 'attacks')}"
    return _guard(name, "warn", f"{said}; is the score's direction right?")


def _precision(rows: Sequence[Measured]) -> Guard:
    name = "prior and precision"
    known = [row for row in rows if None not in row.get("ppv", {"": None}).values()]
    if not known:
        return _guard(name, "info", f"not resolved at a nominal FPR of {float(NOMINAL):.0%}")
    # the best one would be picked by the truth
    ranked = sorted(known, key=lambda row: sum(value or 0.0 for value in row["ppv"].values()))
    middle = ranked[len(ranked) // 2]
    figures = ", ".join(
        f"{value:.0%} with {float(prior):.0%} members" for prior, value in middle["ppv"].items()
    )
    detail = f"share of right accusations at a nominal FPR of {float(NOMINAL):.0%}: {figures}"
    return _guard(name, "info", f"{detail} (median of {len(known)} attacks, {middle['name']})")


def _selection(rows: Sequence[Measured], selects: Mapping[str, str]) -> Guard:
    name = "no choice by truth"
    chosen = "; ".join(f"{r['name']}: {selects[r['name']]}" for r in rows if r["name"] in selects)
    detail = f"{chosen}. " if chosen else ""
    if len(rows) < 2:
        return _guard(name, "pass", f"{detail}One attack, not picked after the fact".strip())
    return _guard(
        name, "info", f"{detail}The strongest of {len(rows)} attacks is named after the fact"
    )


def _transmitted(defences: Sequence[str]) -> Guard:
    after = f", after {', '.join(defences)}" if defences else ""
    return _guard("transmitted artefact", "pass", f"attacked is what was sent{after}")


def _clip(astray: str) -> Guard:
    name = "adaptive clip"
    if astray:
        return _guard(name, "warn", astray.removeprefix(f"{name}: "))
    return _guard(name, "pass", "nothing says that it does not follow its quantile")


def _adaptive(defences: Sequence[str], adaptive: Sequence[str]) -> Guard:
    name, open_ = "adaptive attacker", [d for d in defences if d not in adaptive]
    if not defences:
        return _guard(name, "info", "no defence")
    if open_:
        return _guard(name, "warn", f"no attack here adapts to {', '.join(open_)}")
    return _guard(name, "pass", f"an attack adapts to {', '.join(defences)}")


def _utility(test_accuracy: float | None) -> Guard:
    if test_accuracy is None:
        return _guard("utility", "warn", "the attacked model's test accuracy is not known")
    return _guard("utility", "pass", f"test accuracy {test_accuracy:.3f}, same run, same model")


def _seeds(seeds: int) -> Guard:
    if seeds >= ENOUGH_SEEDS:
        return _guard("seeds", "pass", f"{seeds} seeds")
    said = "one seed" if seeds == 1 else f"{seeds} seeds"
    return _guard("seeds", "warn", f"{said}: run at least {ENOUGH_SEEDS} and compare those")


def _accountant(claimed: float | None, bound: float | None, unclaimed: str) -> Guard:
    name = "accountant"
    if claimed is None:
        return _guard(name, "info", unclaimed)
    if bound is not None and bound > claimed:
        return _guard(name, "fail", f"claimed ε = {claimed:.2f}, attacks prove ε ≥ {bound:.2f}")
    proved = "nothing" if bound is None else f"ε ≥ {bound:.2f}"
    return _guard(name, "pass", f"claimed ε = {claimed:.2f}, attacks prove {proved}")


def _off(rows: Sequence[Measured]) -> list[Measured]:
    return [row for row in rows if not row["auc_ci"][0] <= 0.5 <= row["auc_ci"][1]]


def _least(rows: Sequence[Measured], confidence: float) -> float:
    return min((surprise(r["auc"], r["auc_ci"], confidence) for r in rows), default=math.inf)


def _explained(certain: bool, count: int, what: str) -> str:
    return f"{'beyond' if certain else 'no more than'} what {count} {what} explain"


def _names(rows: Sequence[Measured]) -> str:
    return ", ".join(row["name"] for row in rows)
