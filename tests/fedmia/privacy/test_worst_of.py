"""Whoever has spent most so far is the one that counts, also where it spends no more."""

import math

import pytest

from fedmia.errors import ConfigError
from fedmia.privacy.accounting import Account, Neighbours, Sampling, gaussian_release
from fedmia.privacy.worst_of import Capped, WorstOf

REPLACE = Neighbours.REPLACE_ONE
POISSON = Sampling("poisson", rate=0.1)


def account(z, neighbours=Neighbours.ADD_REMOVE, delta=1e-5, sampling=POISSON):
    return Account(gaussian_release(z, sampling), neighbours, delta)


def worst_of(clients, neighbours=Neighbours.ADD_REMOVE):
    return WorstOf(neighbours, 1e-5, lambda: clients)


def test_each_client_is_counted_up_to_its_own_last_round():
    dear, cheap = account(1.0), account(2.0)
    worst = worst_of([Capped(dear, 2), Capped(cheap, None)])
    rounds = [0, 1, 2, 3, 500, 2]
    wanted = [max(dear.epsilon(min(t, 2)), cheap.epsilon(t)) for t in rounds]
    assert wanted[0] == 0 < wanted[2] == wanted[3] == dear.epsilon(2) < wanted[4]
    assert worst.curve(rounds) == pytest.approx(wanted, rel=1e-9)
    assert worst.epsilon(500) == pytest.approx(cheap.epsilon(500))
    assert worst.epsilon_rdp(3) == max(dear.epsilon_rdp(2), cheap.epsilon_rdp(3))
    assert worst.affordable(wanted[3], 3) == 3


def test_other_neighbours_keep_the_last_rounds_and_need_every_account():
    one, two = account(1.0), account(2.0, sampling=Sampling())
    other = worst_of([Capped(one, 2), Capped(two)]).under(Neighbours.REPLACE_ONE)
    assert other.neighbours is Neighbours.REPLACE_ONE
    capped, free = (known.under(Neighbours.REPLACE_ONE) for known in (one, two))
    assert other.epsilon(9) == pytest.approx(max(capped.epsilon(2), free.epsilon(9)))
    assert other.epsilon_rdp(9) is None
    assert other.method == "GDP, PLD"

    fixed = Sampling("fixed", sample=1, population=9)
    replaced = account(1.0, Neighbours.REPLACE_ONE, sampling=fixed)
    both = worst_of([Capped(account(1.0, REPLACE)), Capped(replaced)], REPLACE)
    assert both.under(Neighbours.ADD_REMOVE) is None


def test_no_noise_anywhere_is_no_epsilon():
    assert worst_of([Capped(account(1.0)), Capped(account(0.0))]).epsilon(1) == math.inf


def test_accounts_of_different_promises_have_no_worst():
    for other in (account(1.0, delta=1e-3), account(1.0, Neighbours.REPLACE_ONE)):
        with pytest.raises(ConfigError, match="expected accounts of add_remove and delta=1e-05"):
            worst_of([Capped(account(1.0)), Capped(other)]).epsilon(1)
    with pytest.raises(ConfigError, match="at least 1"):
        worst_of([]).epsilon(1)


def test_clients_are_settled_once_and_not_before_epsilon_is_asked_for():
    asked = []

    def settled():
        asked.append(1)
        return [Capped(account(1.0))]

    worst = WorstOf(Neighbours.ADD_REMOVE, 1e-5, settled)
    assert not asked
    assert worst.epsilon(2) == worst.epsilon(2) == account(1.0).epsilon(2)
    assert asked == [1]
