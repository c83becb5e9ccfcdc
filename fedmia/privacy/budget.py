"""How much noise a part adds, and what it may cost: set by the noise, by ε, or by both."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from fedmia.errors import expect
from fedmia.privacy.calibration import calibrate
from fedmia.privacy.cost import Cost


@dataclass(frozen=True)
class Budget:
    """The noise multiplier, the budget in ε, or both.

    ================  =========  =====================================================
    noise_multiplier  epsilon    meaning
    ================  =========  =====================================================
    z                 ``None``   noise z, whatever it costs
    ``None``          E          the least noise with which all rounds cost E
    z                 E          noise z; no round that would cost more than E in total
    ``None`` or 0     ``inf``    no noise
    ================  =========  =====================================================

    Parameters
    ----------
    noise_multiplier
        Standard deviation of the noise over the clip.
    epsilon, delta
        Of (ε, δ)-differential privacy.

    Raises
    ------
    ConfigError
        If neither is set, one is out of range, or a finite ε is asked for without noise.
    """

    noise_multiplier: float | None
    epsilon: float | None
    delta: float

    def __post_init__(self) -> None:
        z, epsilon = self.noise_multiplier, self.epsilon
        expect(0 < self.delta < 1, "delta", self.delta, "in (0, 1)")
        expect(epsilon is None or epsilon > 0, "epsilon", epsilon, "more than 0, or null")
        allowed = "at least 0 and finite, or null"
        expect(z is None or 0 <= z < math.inf, "noise_multiplier", z, allowed)
        given = z is not None or epsilon is not None
        expect(given, "noise_multiplier", z, "a number, or epsilon to find it for")
        if epsilon is not None:
            allowed = f"null or 0 with epsilon={epsilon}, which adds no noise"
            expect(not z or epsilon < math.inf, "noise_multiplier", z, allowed)
            allowed = f"more than 0, or null, with epsilon={epsilon}: no ε is had without noise"
            expect(z != 0 or epsilon == math.inf, "noise_multiplier", z, allowed)

    def settle(self, rounds: int, account_of: Callable[[float], Cost]) -> "Settled":
        """Return the noise multiplier and how many of these rounds the budget allows.

        Equal arguments are looked up: finding the noise may take seconds.

        Parameters
        ----------
        rounds
            To come.
        account_of
            Returns the account of a noise multiplier; hashable, by what it depends on.

        Raises
        ------
        ConfigError
            If the budget does not allow a single round.
        """
        return _settle(self, rounds, account_of)


@dataclass(frozen=True)
class Settled:
    """What came of a budget: the noise multiplier, and the rounds it allows (``None``: any)."""

    noise_multiplier: float
    affordable: int | None


@lru_cache(maxsize=1024)
def _settle(budget: Budget, rounds: int, account_of: Callable[[float], Cost]) -> Settled:
    z, epsilon = budget.noise_multiplier, budget.epsilon
    if epsilon is None or epsilon == math.inf:
        return Settled(z or 0.0, None)
    if z is None:
        return Settled(calibrate(epsilon, budget.delta, rounds, account_of), rounds)
    account = account_of(z)
    affordable = account.affordable(epsilon, rounds)
    if affordable < 1:
        allowed = f"at least {account.epsilon(1):.4g}, what one round costs with "
        expect(False, "epsilon", epsilon, f"{allowed}noise_multiplier={z}")
    return Settled(z, affordable)
