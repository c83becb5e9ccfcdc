"""The report as one self-contained page: no script, no request, safe to mail."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import jinja2
import yaml
from markupsafe import Markup

from fedmia.report import page, plots, wording
from fedmia.report.compare import NOT_COMPARED, compare, flatten
from fedmia.report.table import CONFOUNDED, SPREAD, comparison_cells, unmeasured
from fedmia.results import Measured, Result, TargetPopulation


def render(result: Result | Sequence[Result]) -> str:
    """Return the HTML page of one run, or of several side by side."""
    if not isinstance(result, Mapping):
        return _render_comparison(result)
    return _render_run(result)


def _render_run(run: Result) -> str:
    fprs = wording.low_fprs(run["attacks"]) or wording.low_fprs(run["baselines"])
    attacks = wording.measured(run["attacks"])
    targeted = [attack for attack in attacks if attack["per_target"]]
    setup = wording.setup(run["config"])
    return _fill(
        "run",
        title=f"fedmia: {', '.join([*setup, 'seed ' + str(run['seed'])])}",
        run=run,
        headline=wording.headline(run),
        setup=setup,
        warnings=wording.warnings(run),
        best=wording.strongest(run),
        fpr=wording.table_fpr(run["attacks"]),
        fprs=fprs,
        roc=_svg(plots.roc(run)),
        per_round=_svg(plots.per_round(run)),
        histograms=[_svg(plots.histogram(attack)) for attack in attacks],
        measured=len(attacks),
        most_curves=plots.MOST_CURVES,
        others=[attack for attack in attacks if attack["other_members"]],
        targeted=targeted,
        targets=per_target(targeted),
        faults=wording.faults(run),
        config=yaml.safe_dump(run["config"], sort_keys=False, allow_unicode=True),
        timing=[
            (name.removesuffix("_s").replace("_", " "), wording.seconds(value))
            for name, value in cast(dict[str, float | None], run["timing"]).items()
        ],
    )


def _render_comparison(runs: Sequence[Result]) -> str:
    comparison = compare(runs)
    names = [
        " · ".join([*row.settings, row.attack])
        + (f" ({row.vantage})" if len({r.vantage for r in comparison.rows}) > 1 else "")
        for row in comparison.rows
    ]
    seeds = sorted({run["seed"] for run in runs})
    created = sorted(run["created"] for run in runs)
    varied = ", ".join(comparison.settings) or "nothing but the seed"
    return _fill(
        "comparison",
        title=f"fedmia: comparison of {len(runs)} runs",
        headline=f"{len(runs)} runs, {len(seeds)} seeds; varied: {varied}.",
        span=f"{created[0]} to {created[-1]}" if created else "",
        comparison=comparison,
        rows=[(row, comparison_cells(row)) for row in comparison.rows],
        text_columns=len(comparison.settings) + 2,
        spread=SPREAD,
        unmeasured=unmeasured(comparison),
        confounded=CONFOUNDED,
        forest=_svg(plots.forest(comparison, names)),
        warnings=wording.comparison_warnings(runs),
        runs=runs,
        config=_shared(runs),
    )


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
        "tpr_label": wording.tpr_label,
    }
    return environment.get_template(template).render(style=Markup(page.STYLE), **context)
