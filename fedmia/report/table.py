"""Results on the terminal."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fedmia.report import claims, suspicion, wording
from fedmia.report.compare import Comparison, Difference, Row, compare
from fedmia.report.pooling import CONFIDENCE, ENOUGH, Pooled
from fedmia.report.tradeoff import UNCOVERED
from fedmia.results import Outcome, Result

SPREAD = (
    "[low, high]: the run's own interval for 1 seed, smallest and largest for 2, "
    f"a {CONFIDENCE:.0%} interval for {ENOUGH} or more (bootstrap over seeds and records; "
    "a t-interval where scores were not kept)"
)
PAIRED = "same seeds and same records on both sides; + means that more leaks than under the first"
CONFOUNDED = "! a blind baseline's interval does not cover 0.5: the AUC is confounded"


def attack_table(result: Result) -> Table:
    """Return one row an attack: AUC with its interval, TPR, balanced accuracy, seconds."""
    return _outcome_table(result["attacks"], "Attacks", "attack")


def baseline_table(result: Result) -> Table:
    """Return the same columns for what can be guessed without seeing the training."""
    return _outcome_table(result["baselines"], "Blind baselines (should be at 0.5)", "baseline")


def summary(result: Result) -> Group:
    """Return utility, populations, ε proved and claimed, notes, faults and warnings by line."""
    said = wording.summary(result)
    if (claimed := claims.line(result)) is not None:
        said.insert(1 + [what for what, _ in said].index("privacy"), ("ε claimed", claimed))
    if (suspected := suspicion.line(result)) is not None:
        said.append(("suspicion", suspected))
    lines = [
        Text.assemble((f"{what:<10} ", "bold" if what != "fault" else "bold red"), value)
        for what, value in said
    ]
    lines += [Text(f"warning    {line}", style="yellow") for line in wording.warnings(result)]
    if alarm := result["privacy"].get("alarm"):
        lines.append(Text(f"alarm      {alarm}", style="bold red"))
    if result["status"] == "failed":
        lines.append(Text(f"failed     {result['reason']}", style="bold red"))
    return Group(*lines)


def comparison_table(runs: Iterable[Result] | Comparison) -> Table:
    """Return one row an attack and configuration, seeds pooled; what has no number is a note."""
    comparison = runs if isinstance(runs, Comparison) else compare(runs)
    vantages = {row.vantage for row in comparison.rows}
    notes = [SPREAD]
    if len(vantages) == 1:
        notes.append(f"vantage: {next(iter(vantages))}")
    if any(row.confounded for row in comparison.rows):
        notes.append(CONFOUNDED)
    if any(p.claim.epsilon is not None and not p.claim.covers for p in comparison.tradeoff):
        notes.append(f"ε claimed, {UNCOVERED}")
    table = _comparison_frame(
        "Comparison",
        comparison,
        [*notes, *(f"not measured: {line}" for line in unmeasured(comparison))],
    )
    if len(vantages) > 1:
        table.add_column("vantage", overflow="fold")
    table.add_column("seeds", justify="right")
    if comparison.tradeoff:
        table.add_column("ε\nclaimed", justify="right", no_wrap=True)
    table.add_column(Text("AUC [low, high]"), justify="right", no_wrap=True)
    rate = wording.tpr_label(comparison.fpr).replace("@", "\n@", 1)
    for heading in (rate, "bal.\nacc.", "test\nacc.", "blind\nAUC"):
        table.add_column(heading, justify="right", no_wrap=True)
    place = len(comparison.settings) + 1
    for row in comparison.rows:
        if row.auc is None:
            continue
        cells = comparison_cells(row)
        if comparison.tradeoff:
            cells.insert(place + 2, row.claim.shown)
        if len(vantages) == 1:
            del cells[place]
        table.add_row(*map(Text, cells))
    return table


def difference_table(comparison: Comparison) -> Table | None:
    """Return what each configuration changes against the first, ``None`` where nothing pairs."""
    if not comparison.differences:
        return None
    vantages = {row.vantage for row in comparison.rows}
    title = f"Difference to {compared_with(comparison) or 'the configuration under “than”'}"
    table = _comparison_frame(title, comparison, [PAIRED])
    if len(vantages) > 1:
        table.add_column("vantage", overflow="fold")
    if compared_with(comparison) is None:
        table.add_column("than", overflow="fold")
    table.add_column("seeds", justify="right")
    for heading in ("AUC", wording.tpr_label(comparison.fpr)):
        table.add_column(Text(f"{heading} [low, high]"), justify="right", no_wrap=True)
    place = len(comparison.settings) + 1
    for cells in difference_rows(comparison):
        if len(vantages) == 1:
            del cells[place]
        table.add_row(*map(Text, cells))
    return table


def compared_with(comparison: Comparison) -> str | None:
    """Return the configuration that every difference is taken to, ``None`` if there are several.

    Settings of the attacks, which differ from attack to attack, are left out where all that
    changes from a row to its first is the same.
    """
    whole = {", ".join(entry.first) for entry in comparison.differences}
    changed = {_than(entry) for entry in comparison.differences}
    return next((names.pop() for names in (whole, changed) if len(names) == 1), None)


def difference_rows(comparison: Comparison) -> list[list[str]]:
    """Return the printed cells of the differences, with their first where they have several."""
    several = compared_with(comparison) is None
    return [_difference_cells(entry, several) for entry in comparison.differences]


def _than(entry: Difference) -> str:
    pairs = zip(entry.settings, entry.first, strict=True)
    return ", ".join(first for setting, first in pairs if first != setting)


def _difference_cells(entry: Difference, several: bool) -> list[str]:
    return [
        *entry.settings,
        entry.attack,
        entry.vantage,
        *([_than(entry)] if several else []),
        str(len(entry.seeds)),
        _signed(entry.auc),
        wording.DASH if entry.tpr is None else _signed(entry.tpr),
    ]


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
    names: dict[str, dict[str, None]] = {}
    for row in comparison.rows:
        for reason in row.problems:
            names.setdefault(reason, {})[row.attack] = None
    return [f"{', '.join(attacks)}: {reason}" for reason, attacks in names.items()]


def _comparison_frame(title: str, comparison: Comparison, notes: Sequence[str]) -> Table:
    """Return a table with a column a setting and one for the attack: 100 columns hold the rest."""
    table = Table(
        title=Text(title),
        title_justify="left",
        caption=Text("\n".join(notes), style="dim"),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for setting in comparison.settings:
        table.add_column(Text(setting), overflow="fold")
    table.add_column("attack", overflow="fold")
    return table


def _signed(pooled: Pooled) -> str:
    if pooled.kind == "run":
        return f"{pooled.mean:+.3f}"
    return f"{pooled.mean:+.3f} [{pooled.low:+.3f}, {pooled.high:+.3f}]"


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
    for outcome in wording.ranked(outcomes):
        # Names and reasons are data, not markup: they go in as Text.
        table.add_row(
            Text(outcome["name"]),
            Text(outcome["vantage"]),
            Text(f"{wording.number(outcome['auc'])} {wording.interval(outcome['auc_ci'])}"),
            wording.percent(outcome["tpr_at_fpr"].get(fpr)),
            wording.number(outcome["balanced_accuracy"]),
            wording.number(outcome["seconds"], 2),
        )
    lines = [
        Text(f"{status.replace('_', ' ')}: {', '.join(names)}: {reason}", style=style)
        for status, style in (("failed", "red"), ("not_applicable", "dim"))
        for reason, names in wording.reasons(outcomes, status)
    ]
    if (note := wording.worse_than_chance(outcomes)) is not None:
        lines.insert(0, Text(note, style="yellow"))
    if (note := wording.adaptive(outcomes)) is not None:
        lines.insert(0, Text(note, style="dim"))
    if lines:
        table.caption = Text("\n").join(lines)
    return table
