"""What Gaussian noise costs: ε of releases, with and without sampling, composed over rounds.

A noise multiplier is always the noise's standard deviation over the clip, which is the L2
sensitivity of a sum when a unit is added or removed. To replace a unit changes the sum by up to
twice the clip; that factor is applied here, once, and nowhere else.

==========  ===============================  ============================================
sampling    add or remove one                replace one
==========  ===============================  ============================================
all         exact (``GDP``); RDP beside it   exact; RDP beside it
Poisson     ``PLD``; RDP beside it           ``PLD``
fixed size  none: its size would be public   ``RDP``, or that of ``all`` if smaller
==========  ===============================  ============================================

``GDP`` is the closed form of Gaussian releases (:mod:`fedmia.privacy.gaussian`), not the central
limit theorem's approximation of sampled ones. ``PLD``: :mod:`fedmia.privacy.pld`. RDP of samples
of fixed size: Y.-X. Wang, B. Balle, S. Kasiviswanathan, Subsampled Rényi Differential Privacy and
Analytical Moments Accountant, AISTATS 2019 (arXiv 1808.00087), Theorem 27.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from fedmia.errors import expect
from fedmia.privacy.calibration import calibrate
from fedmia.privacy.cost import Cost, Neighbours
from fedmia.privacy.gaussian import epsilon_of_gaussian
from fedmia.privacy.pld import epsilons_by_pld
from fedmia.privacy.rdp import ORDERS, divergences, epsilon_of_divergences
from fedmia.privacy.release import Release, Sampling, composed, gaussian_release

__all__ = [
    "Account",
    "Cost",
    "Neighbours",
    "Release",
    "Sampling",
    "calibrate",
    "composed",
    "gaussian_release",
]


@dataclass(frozen=True)
class Account(Cost):
    """ε of a release that is repeated every round.

    Parameters
    ----------
    release
        Of one round, or of one participation.
    neighbours
        What a unit's absence means.
    delta
        δ, in (0, 1).

    Raises
    ------
    ConfigError
        If ``delta`` is out of its range, or nothing is known for this sampling and relation.
    """

    release: Release
    neighbours: Neighbours
    delta: float

    def __post_init__(self) -> None:
        expect(0 < self.delta < 1, "delta", self.delta, "in (0, 1)")
        allowed = "replace_one for samples of fixed size, and these not beside Poisson's"
        expect(_known(self.release, self.neighbours), "neighbours", self.neighbours, allowed)

    @property
    def method(self) -> str:
        """``GDP`` (exact) without sampling, ``PLD`` with Poisson's, ``RDP`` with fixed sizes."""
        if not self.release.sampled:
            return "GDP"
        return "RDP" if "fixed" in self.release.kinds else "PLD"

    def epsilon(self, rounds: int) -> float:
        """Return ε after so many rounds, 0 after none; ``inf`` if something has no noise.

        For samples of fixed size it is the smaller one of RDP's and that without sampling: both
        are bounds, and RDP's is the larger one for large samples.
        """
        return self.curve([rounds])[0]

    def epsilon_rdp(self, rounds: int) -> float | None:
        """Return ε by Rényi differential privacy; ``None`` for Poisson's under replace-one."""
        if not _covered_by_rdp(self.release, self.neighbours):
            return None
        return self._by_rdp(rounds)

    def curve(self, rounds: Sequence[int]) -> list[float]:
        """Return ε after each of these numbers of rounds; together they cost less than alone."""
        match self.method:
            case "GDP":
                return [self._unsampled(count) for count in rounds]
            case "RDP":
                return [min(self._by_rdp(count), self._unsampled(count)) for count in rounds]
            case _:
                return list(_by_pld(self.release, self.neighbours, self.delta, tuple(rounds)))

    def under(self, neighbours: Neighbours) -> "Account | None":
        """Return the account of the same release for other neighbours, if it is known."""
        return replace(self, neighbours=neighbours) if _known(self.release, neighbours) else None

    @property
    def _sensitivity(self) -> float:
        """Of the sum, in units of the clip."""
        return 2.0 if self.neighbours is Neighbours.REPLACE_ONE else 1.0

    def _unsampled(self, rounds: int) -> float:
        """Return ε were everybody in every sample; exact where there are none."""
        if rounds == 0:
            return 0.0
        precision = self.release.unsampled.precision
        return epsilon_of_gaussian(math.sqrt(rounds * precision) * self._sensitivity, self.delta)

    def _by_rdp(self, rounds: int) -> float:
        if rounds == 0:
            return 0.0
        if self.release.noiseless:
            return math.inf
        one = ORDERS * self.release.precision * self._sensitivity**2 / 2
        for part in self.release.sampled:
            sigma = part.noise_multiplier / self._sensitivity
            one = one + part.times * divergences(sigma, part.sampling)
        return epsilon_of_divergences(rounds * one, self.delta)


def _covered_by_rdp(release: Release, neighbours: Neighbours) -> bool:
    """Return whether bounds are known: Poisson's for add/remove, fixed sizes for replace-one."""
    return release.kinds <= {"poisson" if neighbours is Neighbours.ADD_REMOVE else "fixed"}


def _known(release: Release, neighbours: Neighbours) -> bool:
    return "fixed" not in release.kinds or _covered_by_rdp(release, neighbours)


@lru_cache(maxsize=1024)
def _by_pld(
    release: Release, neighbours: Neighbours, delta: float, rounds: tuple[int, ...]
) -> tuple[float, ...]:
    """Return ε after each number of rounds, in any order."""
    if release.noiseless:
        return tuple(math.inf if count else 0.0 for count in rounds)
    asked = sorted({count for count in rounds if count})
    found = {0: 0.0, **epsilons_by_pld(release, neighbours, delta, asked)}
    return tuple(found[count] for count in rounds)
