"""The rounds in which a target took part, and what is made of a value for each of them."""

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import NotApplicableError, View
from fedmia.attacks.series import column_of
from fedmia.errors import expect


def rounds_of(view: View, target: int | None) -> tuple[int, NDArray[np.int64]]:
    """Return the target's index on the client axis and the rows of the rounds it took part in.

    Raises
    ------
    NotApplicableError
        If no single client is meant, or no update of it was seen.
    """
    k = column_of(view, target)
    rows = np.flatnonzero(view.signals.present[:, k])
    if rows.size == 0:
        raise NotApplicableError("needs a round in which the target took part")
    return k, rows


def check_rounds(rounds: str) -> None:
    """Refuse anything but ``last`` and ``mean``."""
    expect(rounds in ("last", "mean"), "rounds", rounds, "last or mean")


def chosen(rows: NDArray[np.int64], rounds: str) -> NDArray[np.int64]:
    """Return the rows to average over: the last one alone, or all of them."""
    return rows[-1:] if rounds == "last" else rows
