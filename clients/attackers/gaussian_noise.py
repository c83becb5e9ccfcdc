"""Attackers that send noise: the Byzantine clients that the analyses of robust rules begin with.

P. Blanchard, E. M. El Mhamdi, R. Guerraoui, J. Stainer, "Machine Learning with Adversaries:
Byzantine Tolerant Gradient Descent", NeurIPS 2017, whose experiments have such clients.
"""

import math
from dataclasses import dataclass

from clients.attackers.base import Forger, Scene, Vector
from fedmia.errors import expect
from fedmia.seeding import generator


@dataclass(frozen=True, kw_only=True)
class GaussianNoise(Forger):
    """Sends ``w + N(0, std²·I)`` in place of ``w + Δ``.

    Parameters
    ----------
    std
        Of one coordinate, in the units of the model's parameters.
    seed
        Of the noise, which is another for each client and round.
    """

    std: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(0 < self.std < math.inf, "std", self.std, "more than 0 and finite")

    def forge(self, update: Vector, scene: Scene) -> Vector:
        """Return the noise; the update does not enter it."""
        rng = generator(self.seed, "gaussian_noise", scene.client, scene.server_round)
        return self.std * rng.standard_normal(update.size)
