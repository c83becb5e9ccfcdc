import math
from dataclasses import dataclass

import pytest

from fedmia.errors import ConfigError
from fedmia.privacy.budget import Budget
from fedmia.privacy.cost import Cost, Neighbours


@dataclass(frozen=True)
class Linear(Cost):
    """A mechanism whose every round costs 1/z."""

    z: float
    neighbours: Neighbours = Neighbours.ADD_REMOVE
    delta: float = 1e-5
    method = "by hand"

    def epsilon(self, rounds):
        return rounds / self.z if self.z else math.inf

    def epsilon_rdp(self, rounds):
        return None

    def under(self, neighbours):
        return None


def test_noise_alone_has_no_budget():
    settled = Budget(2.0, None, 1e-5).settle(10, Linear)
    assert (settled.noise_multiplier, settled.affordable) == (2.0, None)


def test_a_budget_alone_finds_the_least_noise_for_all_rounds():
    settled = Budget(None, 5.0, 1e-5).settle(10, Linear)
    assert settled.noise_multiplier == pytest.approx(2.0, rel=1e-3)
    assert Linear(settled.noise_multiplier).epsilon(10) <= 5.0
    assert settled.affordable == 10


def test_both_give_the_rounds_within_the_budget():
    assert Budget(2.0, 3.6, 1e-5).settle(10, Linear).affordable == 7
    assert Budget(2.0, 99.0, 1e-5).settle(10, Linear).affordable == 10


@pytest.mark.parametrize(
    "budget", [Budget(None, math.inf, 0.1), Budget(0, math.inf, 0.1), Budget(0.0, None, 0.1)]
)
def test_an_infinite_budget_adds_no_noise_and_never_ends(budget):
    settled = budget.settle(10, Linear)
    assert (settled.noise_multiplier, settled.affordable) == (0.0, None)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((None, None, 1e-5), "noise_multiplier=None: expected a number, or epsilon to find it for"),
        ((None, 0, 1e-5), "epsilon=0: expected more than 0, or null"),
        ((1.0, -2.0, 1e-5), "epsilon=-2.0: expected more than 0, or null"),
        ((None, math.nan, 1e-5), "epsilon=nan: expected more than 0, or null"),
        ((-1.0, None, 1e-5), "noise_multiplier=-1.0: expected at least 0 and finite, or null"),
        ((math.inf, None, 1e-5), "noise_multiplier=inf: expected at least 0 and finite, or null"),
        (
            (0, 3.0, 1e-5),
            "noise_multiplier=0: expected more than 0, or null, with epsilon=3.0: no ε is had "
            "without noise",
        ),
        (
            (1.0, math.inf, 1e-5),
            "noise_multiplier=1.0: expected null or 0 with epsilon=inf, which adds no noise",
        ),
        ((1.0, None, 0), "delta=0: expected in (0, 1)"),
        ((1.0, None, 1), "delta=1: expected in (0, 1)"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(settings, said):
    with pytest.raises(ConfigError) as error:
        Budget(*settings)
    assert str(error.value) == said


def test_a_budget_for_no_round_says_what_one_costs():
    with pytest.raises(ConfigError) as error:
        Budget(2.0, 0.4, 1e-5).settle(10, Linear)
    said = "epsilon=0.4: expected at least 0.5, what one round costs with noise_multiplier=2.0"
    assert str(error.value) == said
