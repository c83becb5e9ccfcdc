"""What the command line prints: tables, a progress bar, errors."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from fedmia.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress

    from fedmia.report.defenses import Page
    from fedmia.results import Result


def show(result: "Result") -> None:
    """Print the tables and the summary of a run."""
    from fedmia.report.table import attack_table, baseline_table, summary

    console = stdout()
    console.print(attack_table(result))
    console.print(baseline_table(result))
    console.print(summary(result))


def compare(dirs: Sequence[Path], output: Path | None = None) -> Path:
    """Print what the runs below ``dirs`` found side by side, and return the page that was written.

    It is ``output``, or in the first of ``dirs``. A single run is shown as it is. Runs that name
    several defences make a page of these instead, in Markdown where ``output`` ends with ``.md``.

    Raises
    ------
    ConfigError
        In one line, if there is no run, a result is broken or the page cannot be written.
    """
    from fedmia import results
    from fedmia.report.compare import compare as pooled
    from fedmia.report.defenses import page as defenses_of
    from fedmia.report.html import render
    from fedmia.report.table import comparison_table, difference_table

    try:
        found = results.find(dirs)
    except results.ResultError as error:
        raise ConfigError(str(error)) from None
    if not found:
        names = ", ".join(map(str, dirs))
        raise ConfigError(f"DIR={names}: expected at least one result.json below, found none")
    runs = [result for _, result in found]
    folders = [folder for folder, _ in found]
    name = "report.html" if len(runs) == 1 else "comparison.html"
    if len(runs) == 1:
        show(runs[0])
        text = render(runs[0])
    elif (defenses := defenses_of(runs, folders)) is not None:
        text, name = _defenses(runs, defenses, output), "defences.html"
    else:
        comparison = pooled(runs, folders)
        console = stdout()
        console.print(comparison_table(comparison))
        if (differences := difference_table(comparison)) is not None:
            console.print(differences)
        text = render(runs, comparison)
    page = output or dirs[0] / name
    try:
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--output={page}: expected a writable file ({error.strerror})") from None
    return page


def _defenses(runs: Sequence["Result"], defenses: "Page", output: Path | None) -> str:
    """Print the table of defences, and return the page."""
    from fedmia.report.defense_table import markdown, table
    from fedmia.report.html import render_defenses

    console = stdout()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=240)
    console.print(table(defenses))
    if output is not None and output.suffix == ".md":
        return markdown(defenses)
    return render_defenses(runs, defenses)


def stdout() -> Console:
    """Return the console for tables; a pipe or a log is not cut at 80 columns."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=100)


class Bar:
    """A bar over the rounds of training, then over the attacks."""

    def __init__(self, progress: "Progress", description: str, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=total, said="")

    def on_round(self, server_round: int, accuracy: float | None) -> None:
        """Show a finished round."""
        said = "" if accuracy is None else f"test accuracy {accuracy:.3f}"
        self._progress.update(self._task, completed=server_round, said=said, description="training")

    def on_attack(self, done: int, total: int, name: str) -> None:
        """Show an attack that starts."""
        self._progress.update(
            self._task, completed=done, total=total, said=name, description="attacking"
        )


@contextmanager
def progress(description: str, total: int) -> Iterator[Bar]:
    """Show a bar while the block runs; only a terminal has one."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    hidden = not console.is_terminal  # it would leave an empty line behind
    with Progress(*columns, console=console, transient=True, disable=hidden) as shown:
        yield Bar(shown, description, total)


def complain(text: str) -> None:
    """Print an error in one line."""
    Console(stderr=True, highlight=False, soft_wrap=True).print("[bold red]error:[/] ", end="")
    print(text, file=sys.stderr, flush=True)
