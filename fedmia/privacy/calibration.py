"""The least noise that a budget allows."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from fedmia.errors import expect
from fedmia.privacy.cost import Cost, Neighbours
from fedmia.privacy.gaussian import mu_of_gaussian

_TOLERANCE = 1e-4
"""Of ε below its budget, relative; ε ~ 1/z or steeper, so that z is as close."""

_ROUGH = 0.02
"""The same, for the first guess."""

_TRIALS = 25
"""Steps of at most a factor e from the first guess."""

Excess = Callable[[float], float]
"""ln(ε/budget) as a function of ln z; falls."""


@dataclass(frozen=True)
class _Trial:
    """A noise multiplier z and how far its ε is from the budget, both as logarithms."""

    log_z: float
    excess: float


def calibrate(
    budget: float, delta: float, rounds: int, account_of: Callable[[float], Cost]
) -> float:
    """Return the smallest noise multiplier whose ε after all rounds is within the budget.

    Parameters
    ----------
    budget
        ε, > 0. For ``inf`` no noise is needed: 0.
    delta
        δ of the accounts, in (0, 1).
    rounds
        ≥ 1.
    account_of
        The account of a noise multiplier; its ε falls as the multiplier grows.

    Returns
    -------
    noise_multiplier
        To 1e-4 of itself; ``account_of(noise_multiplier).epsilon(rounds)`` is at most ``budget``.

    Raises
    ------
    ConfigError
        If a value is out of its range, or no noise multiplier keeps the budget.
    """
    expect(budget > 0, "epsilon", budget, "> 0")
    expect(0 < delta < 1, "delta", delta, "in (0, 1)")
    expect(rounds >= 1, "rounds", rounds, "≥ 1")
    if math.isinf(budget):
        return 0.0

    def excess(epsilon: float) -> float:
        return math.log(epsilon / budget) if epsilon > 0 else -math.inf

    unsampled = math.log(math.sqrt(rounds) / mu_of_gaussian(budget, delta))
    guess = _search(
        lambda log_z: excess(_roughly(account_of(math.exp(log_z)), rounds)),
        unsampled,
        _ROUGH,
        budget,
    )
    return math.exp(
        _search(
            lambda log_z: excess(account_of(math.exp(log_z)).epsilon(rounds)),
            guess,
            _TOLERANCE,
            budget,
        )
    )


def _roughly(cost: Cost, rounds: int) -> float:
    """Return about ε, from what is had at once: RDP, or twice that of neighbours half as far."""
    if (epsilon := cost.epsilon_rdp(rounds)) is not None:
        return epsilon
    other = cost.under(Neighbours.ADD_REMOVE)
    half = other.epsilon_rdp(rounds) if other else None
    return cost.epsilon(rounds) if half is None else 2 * half


def _search(excess: Excess, start: float, tolerance: float, budget: float) -> float:
    """Return the log z whose excess is at most 0 and hardly less than −tolerance."""
    little, enough = _bracket(excess, _Trial(start, excess(start)), budget)
    return _narrow(excess, little, enough, tolerance)


def _bracket(excess: Excess, first: _Trial, budget: float) -> tuple[_Trial, _Trial]:
    """Return a trial with too little noise and one with enough."""
    here, enough = first, first.excess <= 0
    for _ in range(_TRIALS):
        step = min(1.0, max(0.01, 1.05 * abs(here.excess)))
        log_z = here.log_z + (-step if enough else step)
        there = _Trial(log_z, excess(log_z))
        if (there.excess <= 0) != enough:
            return (there, here) if enough else (here, there)
        here = there
    expect(False, "epsilon", budget, "a budget that some noise multiplier keeps")
    raise AssertionError


def _narrow(excess: Excess, little: _Trial, enough: _Trial, tolerance: float) -> float:
    """Return the log z of just enough noise, by regula falsi.

    It aims at the middle of the tolerated excess. Where one end of the bracket stays, its value
    is halved (the Illinois rule), so that it moves next.
    """
    aim = -tolerance / 2
    above, below, moved = little.excess - aim, enough.excess - aim, 0
    while enough.excess < -tolerance and enough.log_z - little.log_z > tolerance / 10:
        share = above / (above - below) if math.isfinite(above - below) else 0.5
        log_z = little.log_z + share * (enough.log_z - little.log_z)
        here = _Trial(log_z, excess(log_z))
        if here.excess <= 0:
            enough, below = here, here.excess - aim
            above = above / 2 if moved < 0 else above
            moved = -1
        else:
            little, above = here, here.excess - aim
            below = below / 2 if moved > 0 else below
            moved = 1
    return enough.log_z
