"""Results on the terminal."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fedmia.report import wording
from fedmia.report.compare import CONFIDENCE, Comparison, Row, compare
from fedmia.results import Outcome, Result

SPREAD = (
    "[low, high]: the run's own interval for 1 seed, smallest and largest for 2, "
    f"a {CONFIDENCE:.0%} t-interval of the mean for 3 or more"
)
CONFOUNDED = "! a blind baseline's interval does not cover 0.5: the AUC is confounded"


def attack_table(result: Result) -> Table:
    """Return one row an attack: AUC with its interval, TPR, balanced accuracy, seconds."""
    return _outcome_table(result["attacks"], "Attacks", "attack")


def baseline_table(result: Result) -> Table:
    """Return the same columns for what can be guessed without seeing the training."""
    return _outcome_table(result["baselines"], "Blind baselines (should be at 0.5)", "baseline")


def summary(result: Result) -> Group:
    """Return utility, populations, ε with its ceiling, notes, faults and warnings, a line each."""
    lines = [
        Text.assemble((f"{what:<11}", "bold" if what != "fault" else "bold red"), value)
        for what, value in wording.summary(result)
    ]
    lines += [Text(f"warning    {line}", style="yellow") for line in wording.warnings(result)]
    if result["status"] == "failed":
        lines.append(Text(f"failed     {result['reason']}", style="bold red"))
    return Group(*lines)


def comparison_table(runs: Iterable[Result] | Comparison) -> Table:
    """Return one row an attack and configuration, seeds pooled; see ``compare``."""
    comparison = runs if isinstance(runs, Comparison) else compare(runs)
    notes = [SPREAD]
    if any(row.confounded for row in comparison.rows):
        notes.append(CONFOUNDED)
    caption = Text("\n".join(notes + unmeasured(comparison)), style="dim")
    table = Table(title="Comparison", title_justify="left", caption=caption, caption_justify="left")
    for setting in comparison.settings:
        table.add_column(Text(setting), overflow="fold")
    table.add_column("attack", no_wrap=True)
    table.add_column("vantage", overflow="fold")
    tpr = wording.tpr_label(comparison.fpr)
    table.add_column("seeds", justify="right")
    table.add_column(Text("AUC [low, high]"), justify="right", no_wrap=True)
    table.add_column(tpr, justify="right", no_wrap=True)
    for heading in ("bal. acc.", "test acc.", "blind AUC"):
        table.add_column(heading, justify="right")
    for row in comparison.rows:
        style = "" if row.auc else "dim"
        table.add_row(*(Text(cell) for cell in comparison_cells(row)), style=style)
    return table


def comparison_cells(row: Row) -> list[str]:
    """Return the printed cells of one row of a comparison."""
    auc = "not measured"
    if row.auc is not None:
        auc = f"{wording.number(row.auc.mean)} {wording.interval((row.auc.low, row.auc.high))}"
    count = len(row.seeds)
    return [
        *row.settings,
        row.attack,
        row.vantage,
        f"{count} of {count + row.missing}" if row.missing else str(count),
        auc,
        wording.percent(row.tpr),
        wording.number(row.balanced_accuracy),
        wording.number(row.test_accuracy),
        wording.number(row.blind_auc) + (" !" if row.confounded else ""),
    ]


def unmeasured(comparison: Comparison) -> list[str]:
    """Return why rows or some of their seeds have no numbers, each reason once."""
    lines = [f"{row.attack}: {reason}" for row in comparison.rows for reason in row.problems]
    return list(dict.fromkeys(lines))


def _outcome_table(outcomes: Sequence[Outcome], title: str, first: str) -> Table:
    fpr = wording.table_fpr(outcomes)
    table = Table(
        title=title,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column(first, no_wrap=True)
    table.add_column("vantage", overflow="fold")
    for heading in ("AUC [CI]", wording.tpr_label(fpr), "bal. acc.", "seconds"):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    reasons = Text()
    for outcome in outcomes:
        # Names and reasons are data, not markup: they go in as Text.
        lead = [Text(outcome["name"]), Text(outcome["vantage"])]
        if outcome["status"] == "ok":
            table.add_row(
                *lead,
                Text(f"{wording.number(outcome['auc'])} {wording.interval(outcome['auc_ci'])}"),
                wording.percent(outcome["tpr_at_fpr"].get(fpr)),
                wording.number(outcome["balanced_accuracy"]),
                wording.number(outcome["seconds"], 2),
            )
        else:
            failed = outcome["status"] == "failed"
            words, style = outcome["status"].replace("_", " "), "red" if failed else "dim"
            table.add_row(*lead, Text(words), style=style)
            reasons.append(f"{outcome['name']}: {outcome['reason']}\n", style=style)
    if reasons:
        reasons.rstrip()
        table.caption = reasons
    return table
