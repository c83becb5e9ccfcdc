"""Attackers that move the model away from where their own records would move it."""

import math
from dataclasses import dataclass

from clients.attackers.base import Forger, Scene, Vector
from fedmia.errors import expect


@dataclass(frozen=True, kw_only=True)
class SignFlip(Forger):
    """Sends ``w − scale·Δ`` in place of ``w + Δ``.

    Parameters
    ----------
    scale
        More than 0; with 1 the update keeps its norm.
    """

    scale: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(0 < self.scale < math.inf, "scale", self.scale, "more than 0 and finite")

    def forge(self, update: Vector, scene: Scene) -> Vector:
        """Return ``−scale·Δ``."""
        return -self.scale * update
