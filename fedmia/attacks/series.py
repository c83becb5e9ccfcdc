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
