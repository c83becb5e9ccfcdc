"""Attackers that hide in the spread of honest updates: "a little is enough".

G. Baruch, M. Baruch, Y. Goldberg, "A Little Is Enough: Circumventing Defenses For Distributed
Learning", NeurIPS 2019, arXiv 1902.06156.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

from clients.attackers.base import Vector
from clients.attackers.colluding import Colluding, Matrix
from fedmia.errors import expect


def largest_z(clients: int, attackers: int) -> float:
    """Return the paper's z_max: so far from the mean enough honest updates are still further out.

    With n clients and f attackers, ``s = ⌊n/2 + 1⌋ − f`` honest ones have to be further out for
    the attackers to be taken for the majority's side, and ``z_max = Φ⁻¹((n − f − s) / (n − f))``;
    negative where there are too few attackers for that.
    """
    honest = clients - attackers
    needed = clients // 2 + 1 - attackers
    share = (honest - needed) / honest
    if not 0 < share < 1:
        return math.copysign(math.inf, share - 0.5)
    return NormalDist().inv_cdf(share)


@dataclass(frozen=True, kw_only=True)
class Alie(Colluding):
    """Sends, in each coordinate, the honest updates' mean less z of their standard deviations.

    Parameters
    ----------
    z
        More than 0; ``None`` for :func:`largest_z`.
    """

    z: float | None = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        who, n = len(self.attackers(self.num_clients)), self.num_clients
        if self.z is not None:
            expect(0 < self.z < math.inf, "z", self.z, "null, or more than 0 and finite")
        elif who:
            most = largest_z(n, who)
            allowed = f"a number: with {who} attackers of {n} clients z_max is {most:.3g}"
            expect(0 < most < math.inf, "z", "null", allowed)

    def agree(self, updates: Matrix) -> Vector:
        """Return ``mean − z·std`` of each coordinate, the deviation being that of all m."""
        who = len(self.attackers(self.num_clients))
        z = largest_z(self.num_clients, who) if self.z is None else self.z
        found: Vector = updates.mean(axis=0) - z * updates.std(axis=0)
        return found
