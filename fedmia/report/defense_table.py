"""The page of defences as cells, on the terminal and in Markdown."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from fedmia.report.defenses import Defense, Leak, Page
from fedmia.report.pooling import Pooled
from fedmia.report.wording import DASH, number, percent, tpr_label

FRONT = "★"
NOTE = (
    f"{FRONT}: no other line with the same vantage has both a higher accuracy and a lower AUC. "
    "Strongest attacks by mean AUC over seeds, adaptive: those that know the defence. Changes: the "
    "stronger of both against the strongest attack on the line without a defence at the same "
    "vantage, on the same seeds and records; + means that more leaks."
)


def headings(page: Page) -> list[str]:
    """Return the columns' names."""
    rate = tpr_label(page.fpr)
    return [
        "defence",
        "test acc.",
        "change",
        "passive attack",
        "AUC",
        rate,
        "adaptive attack",
        "AUC",
        rate,
        "change of AUC",
        f"of {rate}",
        "kB sent",
        "s/round",
        "ε claimed",
    ]


def cells(page: Page) -> list[list[str]]:
    """Return one row a defence."""
    return [_cells(row) for row in page.rows]


def table(page: Page) -> Table:
    """Return it for the terminal."""
    found = Table(title="Defences", box=box.SIMPLE_HEAD, caption=NOTE, title_justify="left")
    for index, name in enumerate(headings(page)):
        found.add_column(name, justify="left" if index in (0, 3, 6) else "right")
    for row in cells(page):
        found.add_row(*row)
    return found


def markdown(page: Page) -> str:
    """Return it as a Markdown table."""
    names = headings(page)
    lines = [names, ["---" if i in (0, 3, 6) else "---:" for i in range(len(names))], *cells(page)]
    seeds = sorted({seed for row in page.rows for seed in row.seeds})
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{text}\n\nSeeds {', '.join(map(str, seeds))}. {NOTE}\n"


def _cells(row: Defense) -> list[str]:
    name = f"{row.name} {FRONT}" if row.front else row.name
    return [
        name,
        _plain(row.accuracy),
        _signed(row.accuracy_change),
        *_leak(row.passive, row.problem),
        *_leak(row.adaptive, ""),
        _signed(row.auc_change),
        _signed_percent(row.tpr_change),
        DASH if row.bytes is None else f"{row.bytes / 1000:.0f}",
        number(row.seconds, 2),
        row.claim.shown,
    ]


def _leak(leak: Leak | None, problem: str) -> Sequence[str]:
    if leak is None:
        return problem or DASH, DASH, DASH
    rate = DASH if leak.tpr is None else percent(leak.tpr.mean)
    return leak.attack, _plain(leak.auc), rate


def _plain(pooled: Pooled | None) -> str:
    if pooled is None:
        return DASH
    return f"{pooled.mean:.3f} [{pooled.low:.3f}, {pooled.high:.3f}]"


def _signed(pooled: Pooled | None) -> str:
    if pooled is None:
        return DASH
    return f"{pooled.mean:+.3f} [{pooled.low:+.3f}, {pooled.high:+.3f}]"


def _signed_percent(pooled: Pooled | None) -> str:
    if pooled is None:
        return DASH
    return f"{pooled.mean:+.1%} [{pooled.low:+.1%}, {pooled.high:+.1%}]"
