"""The report as one self-contained page: no script, no request, safe to mail."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import jinja2
import yaml
from markupsafe import Markup

from fedmia import communication
from fedmia.report import (
    claims,
    defense_figure,
    defense_table,
    epsilons,
    page,
    page_defenses,
    page_privacy,
    page_suspicion,
    plots,
    suspicion,
    tradeoff,
    wording,
)
from fedmia.report.compare import Comparison, compare
from fedmia.report.defenses import Page
from fedmia.report.lines import NOT_COMPARED, flatten
from fedmia.report.style import STYLE
from fedmia.report.table import (
    CONFOUNDED,
    PAIRED,
    SPREAD,
    compared_with,
    comparison_cells,
    difference_rows,
    unmeasured,
)
from fedmia.report.tradeoff_figure import figure as tradeoff_figure
from fedmia.results import Measured, Result, TargetPopulation

MARKS = {"pass": "✓", "warn": "!", "fail": "✗", "info": "·"}
"""Shapes beside the words: a guard's verdict does not hang on colour."""
NOMINAL = "0.01"
"""The false-positive rate at which calibrated thresholds are shown."""


def render(result: Result | Sequence[Result], comparison: Comparison | None = None) -> str:
    """Return the HTML page of one run, or of several side by side.

    ``comparison`` is the one of several runs where it was made before.
    """
    if not isinstance(result, Mapping):
        return _render_comparison(result, comparison or compare(result))
    return _render_run(result)


def _render_run(run: Result) -> str:
    fprs = wording.low_fprs(run["attacks"]) or wording.low_fprs(run["baselines"])
    attacks = wording.ranked(run["attacks"])
    targeted = [attack for attack in attacks if attack["per_target"]][: plots.MOST_PANELS]
    sources = [attack for attack in attacks if attack.get("source_accuracy") is not None]
    whose = [
        attack
        for attack in attacks
        if attack["other_members"] or attack.get("source_accuracy") is not None
    ]
    calibrated = [
        attack for attack in attacks if attack.get("achieved_fpr", {}).get(NOMINAL) is not None
    ]
    setup = wording.setup(run["config"])
    planted = run["privacy"].get("canary_clients")
    return _fill(
        "run",
        title=f"fedmia: {', '.join([*setup, 'seed ' + str(run['seed'])])}",
        run=run,
        headline=wording.headline(run),
        setup=setup,
        warnings=wording.warnings(run),
        notes=claims.told_apart(run),
        claims=claims.table(run),
        covering=claims.covering(run),
        covered=claims.line(run),
        canaries=claims.canaries(planted) if planted else [],
        epsilons=_svg(epsilons.figure(run)),
        best=wording.strongest(run),
        fpr=wording.table_fpr(run["attacks"]),
        fprs=fprs,
        roc=_svg(plots.roc(run)),
        per_round=_svg(plots.per_round(run)),
        histograms=[_svg(plots.histogram(attack)) for attack in attacks[: plots.MOST_PANELS]],
        most_panels=plots.MOST_PANELS,
        measured=len(attacks),
        vantages=sorted({attack["vantage"] for attack in run["attacks"]}),
        most_curves=plots.MOST_CURVES,
        marks=MARKS,
        nominal=NOMINAL,
        calibrated=calibrated,
        priors=list(calibrated[0]["ppv"]) if calibrated else [],
        whose=whose,
        sources=sources,
        targeted=targeted,
        targets=per_target(targeted),
        faults=wording.faults(run),
        **_suspicion(run),
        sent=communication.line(said) if (said := run.get("communication")) else None,
        config=yaml.safe_dump(run["config"], sort_keys=False, allow_unicode=True),
        timing=[
            (name.removesuffix("_s").replace("_", " "), wording.seconds(value))
            for name, value in cast(dict[str, float | None], run["timing"]).items()
        ],
    )


def _render_comparison(runs: Sequence[Result], comparison: Comparison) -> str:
    vantages = {row.vantage for row in comparison.rows}
    names = [
        " · ".join([*row.settings, row.attack]) + (f" ({row.vantage})" if len(vantages) > 1 else "")
        for row in comparison.rows
    ]
    seeds = sorted({run["seed"] for run in runs})
    created = sorted(run["created"] for run in runs)
    keys = [*comparison.settings, *(["vantage"] if len(vantages) > 1 else [])]
    varied = ", ".join(keys) or "nothing but the seed"
    return _fill(
        "comparison",
        title=f"fedmia: comparison of {len(runs)} runs",
        headline=f"{len(runs)} runs, {len(seeds)} seeds; varied: {varied}.",
        span=f"{created[0]} to {created[-1]}" if created else "",
        comparison=comparison,
        rows=[
            comparison_cells(row) + ([row.claim.shown] if comparison.tradeoff else [])
            for row in comparison.rows
            if row.auc
        ],
        tradeoff=tradeoff.cells(comparison.tradeoff) if comparison.tradeoff else [],
        tradeoff_figure=_svg(tradeoff_figure(comparison.tradeoff, comparison.fpr)),
        uncovered=tradeoff.UNCOVERED,
        differences=difference_rows(comparison),
        first=compared_with(comparison),
        paired=PAIRED,
        text_columns=len(comparison.settings) + 2,
        spread=SPREAD,
        unmeasured=unmeasured(comparison),
        confounded=CONFOUNDED,
        forest=_svg(plots.forest(comparison, names)),
        warnings=wording.comparison_warnings(runs),
        runs=runs,
        config=_shared(runs),
    )


def render_defenses(runs: Sequence[Result], defenses: Page) -> str:
    """Return the HTML page of defences side by side."""
    seeds = {seed for row in defenses.rows for seed in row.seeds}
    return _fill(
        "defenses",
        title=f"fedmia: {len(defenses.rows)} defences",
        headline=f"{len(defenses.rows)} defences, {len(seeds)} seeds, {len(runs)} runs.",
        figure=_svg(defense_figure.figure(defenses)),
        headings=defense_table.headings(defenses),
        words=(0, 3, 6),
        cells=defense_table.cells(defenses),
        note=defense_table.NOTE,
        spread=SPREAD,
        config=_shared(runs),
    )


def _suspicion(run: Result) -> dict[str, Any]:
    """Return what the page says of suspicious clients."""
    found = run.get("suspicion")
    if not found:
        return {"suspicion": None}
    clients = {client for row in found["reputations"] for client in row["clients"]}
    return {
        "suspicion": found,
        "suspicion_rates": suspicion.rates(found),
        "suspicion_more": len(clients) > suspicion.MOST_CHARTS,
        "most_charts": suspicion.MOST_CHARTS,
        "reputations": _svg(suspicion.chart(found)),
        "audit_list": suspicion.audit_list(found),
    }


def per_target(
    attacks: Sequence[Measured],
) -> list[tuple[int, list[TargetPopulation | None]]]:
    """Return ``(client, one cell an attack)`` rows; attacks may have different targets."""
    cells = [{target["client"]: target for target in attack["per_target"]} for attack in attacks]
    clients = sorted({client for column in cells for client in column})
    return [(client, [column.get(client) for column in cells]) for client in clients]


def _shared(runs: Sequence[Result]) -> str:
    """Return the settings that every run has with the same value, a line each."""
    flat = [
        flatten({key: value for key, value in run["config"].items() if key not in NOT_COMPARED})
        for run in runs
    ]
    first = flat[0] if flat else {}
    return "\n".join(
        f"{key}: {value}"
        for key, value in first.items()
        if all(other.get(key) == value for other in flat)
    )


def _svg(text: str | None) -> Markup | None:
    """Mark a figure as safe: it was drawn here, and its texts are escaped where it is drawn."""
    return None if text is None else Markup(text)


def _percents(bounds: Sequence[float]) -> str:
    return f"[{wording.percent(bounds[0])}, {wording.percent(bounds[1])}]"


def _fill(template: str, **context: Any) -> str:
    templates = {
        "base": page.BASE,
        "outcomes": page.OUTCOMES,
        "run": page.RUN,
        "comparison": page.COMPARISON,
        "claims": page_privacy.CLAIMS,
        "tradeoff": page_privacy.TRADEOFF,
        "suspicion": page_suspicion.SUSPICION,
        "defenses": page_defenses.DEFENSES,
    }
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(templates),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": wording.number,
        "interval": wording.interval,
        "percent": wording.percent,
        "percents": _percents,
        "ranked": wording.ranked,
        "reasons": wording.reasons,
        "tpr_label": wording.tpr_label,
        "worse_than_chance": wording.worse_than_chance,
        "adaptive": wording.adaptive,
    }
    return environment.get_template(template).render(style=Markup(STYLE), **context)
