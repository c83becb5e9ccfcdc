"""Attackers that go as far as they can without being further out than honest clients are.

V. Shejwalkar, A. Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and
Defenses for Federated Learning", NDSS 2021, Min-Max.
"""

from dataclasses import dataclass

import numpy as np

from clients.attackers.base import Vector
from clients.attackers.colluding import Colluding, Matrix, squared_distances
from fedmia.errors import expect

_DIRECTIONS = ("std", "unit", "sign")
_SHARE = 1 - 2.0**-20
"""Of the largest step, so that rounding does not end beyond the bound."""


@dataclass(frozen=True, kw_only=True)
class MinMax(Colluding):
    """Sends ``b + γ·p``: b is the mean of the honest updates, p points away from where they go.

    γ is the largest one by which no honest update is further from what is sent than two honest
    ones are from one another. Each of them bounds γ by a root of a quadratic equation, so that no
    search is needed.

    Parameters
    ----------
    direction
        p: ``std`` for minus the standard deviation of each coordinate, ``unit`` for ``−b/‖b‖``,
        ``sign`` for ``−sign(b)``.
    """

    direction: str = "std"

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = ", ".join(_DIRECTIONS[:-1]) + f" or {_DIRECTIONS[-1]}"
        expect(self.direction in _DIRECTIONS, "direction", self.direction, allowed)

    def agree(self, updates: Matrix) -> Vector:
        """Return ``b + γ·p``."""
        mean: Vector = updates.mean(axis=0)
        step = self._direction(updates, mean)
        square = float(np.square(step).sum())
        if not square:  # nothing to point away from: the updates are equal, or cancel out
            return mean
        away = mean - updates
        along = (away * step).sum(axis=1) / square
        slack = squared_distances(updates).max() - np.square(away).sum(axis=1)
        roots = np.sqrt(np.square(along) + np.maximum(slack, 0.0) / square) - along
        return mean + _SHARE * float(roots.min()) * step

    def _direction(self, updates: Matrix, mean: Vector) -> Vector:
        if self.direction == "std":
            return np.asarray(-updates.std(axis=0))
        if self.direction == "sign":
            return np.asarray(-np.sign(mean))
        length = float(np.sqrt(np.square(mean).sum()))
        return -mean / length if length else mean
