import math

import pytest

from fedmia.errors import ConfigError
from fedmia.privacy.accounting import Account, Neighbours, Sampling, calibrate, gaussian_release

ADD, REPLACE = Neighbours.ADD_REMOVE, Neighbours.REPLACE_ONE
EVERYBODY = Sampling()
DELTA = 1e-5


class Counted:
    """Accounts of a noise multiplier, and which were asked for."""

    def __init__(self, sampling=EVERYBODY, neighbours=ADD):
        self.sampling, self.neighbours, self.asked = sampling, neighbours, []

    def __call__(self, z):
        self.asked.append(z)
        return Account(gaussian_release(z, self.sampling), self.neighbours, DELTA)


@pytest.mark.parametrize(("epsilon", "z"), [(1, 20.4), (2, 10.9), (4, 5.9), (8, 3.3)])
def test_thirty_rounds_of_everybody_take_the_published_noise(epsilon, z):
    assert calibrate(epsilon, DELTA, 30, Counted()) == pytest.approx(z, abs=0.05)


@pytest.mark.parametrize(
    ("sampling", "neighbours"),
    [
        (Sampling(), ADD),
        (Sampling(), REPLACE),
        (Sampling("poisson", rate=0.1), ADD),
        (Sampling("poisson", rate=0.5), REPLACE),
        (Sampling("fixed", sample=2, population=10), REPLACE),
    ],
    ids=["all", "all-replaced", "poisson", "poisson-replaced", "fixed"],
)
@pytest.mark.parametrize(("budget", "rounds"), [(0.5, 100), (8.0, 10)])
def test_the_budget_is_used_up_and_never_overspent(sampling, neighbours, budget, rounds):
    account_of = Counted(sampling, neighbours)
    z = calibrate(budget, DELTA, rounds, account_of)
    assert 0.999 * budget < account_of(z).epsilon(rounds) <= budget


def test_few_exact_accounts_are_worked_out():
    account_of = Counted(Sampling("poisson", rate=0.01))
    exact = []

    def watched(z):
        account = account_of(z)

        class Watched(Account):
            def epsilon(self, rounds):
                exact.append(z)
                return super().epsilon(rounds)

        return Watched(account.release, account.neighbours, account.delta)

    calibrate(8.0, DELTA, 300, watched)
    assert 2 <= len(exact) <= 6


def test_less_noise_than_the_least_overspends():
    account_of = Counted(Sampling("poisson", rate=0.2))
    z = calibrate(2.0, DELTA, 20, account_of)
    assert account_of(z * (1 - 2e-4)).epsilon(20) > 2.0


def test_an_infinite_budget_takes_no_noise_and_no_account():
    account_of = Counted()
    assert calibrate(math.inf, DELTA, 10, account_of) == 0
    assert account_of.asked == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.0, DELTA, 1), "epsilon=0.0: expected > 0"),
        ((-1.0, DELTA, 1), "epsilon=-1.0: expected > 0"),
        ((1.0, 0.0, 1), r"delta=0.0: expected in \(0, 1\)"),
        ((1.0, DELTA, 0), "rounds=0: expected ≥ 1"),
    ],
)
def test_bad_arguments_are_told_in_one_line(values, message):
    with pytest.raises(ConfigError, match=message):
        calibrate(*values, Counted())


def test_a_budget_that_no_noise_keeps_is_an_error():
    with pytest.raises(ConfigError, match=r"epsilon=1\.0: expected a budget that some noise"):
        calibrate(1.0, DELTA, 3, lambda z: Account(gaussian_release(0.0), ADD, DELTA))
