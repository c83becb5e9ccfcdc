"""Attackers that make their updates count for more than those of others."""

import math
from dataclasses import dataclass

from clients.attackers.base import Forger, Scene, Vector
from fedmia.errors import expect


@dataclass(frozen=True, kw_only=True)
class Scaling(Forger):
    """Sends ``w + factor·Δ`` in place of ``w + Δ``.

    Around :class:`clients.attackers.label_flip.LabelFlip` it makes a few clients outvote all
    others: with ``factor`` the number of clients, the average of all is moved by one attacker as
    far as that one's own model.

    Parameters
    ----------
    factor
        More than 1.
    """

    factor: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(1 < self.factor < math.inf, "factor", self.factor, "more than 1 and finite")

    def forge(self, update: Vector, scene: Scene) -> Vector:
        """Return ``factor·Δ``."""
        return self.factor * update
