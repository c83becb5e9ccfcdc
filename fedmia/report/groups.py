"""Runs that differ in nothing but the seed, gathered into the rows of a comparison."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from fedmia.report.lines import Line, line_of
from fedmia.report.wording import measured
from fedmia.results import Measured, Outcome, Result


class Seed(NamedTuple):
    """What one run says about one attack; ``folder`` may hold its scores."""

    run: Result
    outcome: Outcome
    folder: Path | None


Groups = dict[Line, dict[int, Seed]]
"""By row, then by seed."""


def group(runs: Iterable[Result], folders: Sequence[Path] | None = None) -> Groups:
    """Return what each row has of each seed; of a seed that was run twice, the latest run."""
    groups: Groups = {}
    listed = list(runs)
    places: Sequence[Path | None] = [None] * len(listed) if folders is None else folders
    paired = zip(listed, places, strict=True)
    for result, folder in sorted(paired, key=lambda pair: pair[0]["created"]):
        for outcome in result["attacks"]:
            found = groups.setdefault(line_of(result, outcome), {})
            found[result["seed"]] = Seed(result, outcome, folder)
    return groups


def good(seeds: Iterable[Seed]) -> list[tuple[Seed, Measured]]:
    """Return the seeds that were measured, and what was measured."""
    return [(seed, one) for seed in seeds for one in measured([seed.outcome])]


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values, ``None`` without any and where one is missing."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None
