"""The plan of an experiment on the terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.table import Table

from fedmia.report import wording


def plan_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Return one row a false-positive rate, fields as in :class:`fedmia.power.Resolution`."""
    table = Table(title="What these candidates can show", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("FPR", justify="right")
    for heading in (
        "errors\nallowed",
        "FPR is\nat most",
        "TPR of an\nAUC of 0.7",
        "held-out for\n1 error",
        "held-out for\n10 errors",
        "held-out for\nFPR within 2×",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        tpr = "–"
        if row["resolved"]:
            tpr = f"{row['tpr']:.1%} ± {row['half_width']:.1%}"
        within = "–" if row["within_two"] is None else f"{row['within_two']:,}"
        table.add_row(
            wording.percent(row["fpr"]),
            str(row["false_positives"]),
            f"{row['fpr_upper']:.2%}",
            tpr,
            f"{row['for_one']:,}",
            f"{row['for_ten']:,}",
            within,
        )
    return table
