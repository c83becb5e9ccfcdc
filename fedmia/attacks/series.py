"""A target's column of a signal, in the rounds in which it took part."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import NotApplicableError, View


def column_of(view: View, target: int | None) -> int:
    """Return the target's index on the client axis.

    Raises
    ------
    NotApplicableError
        If no single client is meant, or no update of it was seen.
    """
    if target is None or target not in view.signals.nodes:
        raise NotApplicableError("needs client updates; none of this target was seen")
    return view.signals.nodes.index(target)


def over_rounds(view: View, signal: NDArray[Any], target: int | None) -> NDArray[np.float64]:
    """Return a signal (rounds, clients, n) of one target as (rounds it took part in, n).

    Raises
    ------
    NotApplicableError
        As :func:`column_of`, or if the target took part in none of the rounds.
    """
    k = column_of(view, target)
    present = view.signals.present[:, k]
    if not present.any():
        raise NotApplicableError("needs a round in which the target took part")
    return np.asarray(signal[:, k], dtype=np.float64)[present]


def resample(series: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Return a series (rounds, ...) brought to ``length`` rounds, linear between neighbours.

    First and last stay where they are; one round alone is repeated. A target that took part in
    few rounds thus has as many features as the one that an attack network was trained on.

    Raises
    ------
    ValueError
        If there is no round, or ``length`` is not positive.
    """
    if len(series) == 0 or length < 1:
        raise ValueError(f"cannot bring {len(series)} rounds to {length}")
    position = (
        np.linspace(0, len(series) - 1, length) if length > 1 else np.array([len(series) - 1])
    )
    before = np.floor(position).astype(np.int64)
    after = np.minimum(before + 1, len(series) - 1)
    share = (position - before).reshape(-1, *[1] * (series.ndim - 1))
    return np.asarray((1 - share) * series[before] + share * series[after], dtype=np.float64)
