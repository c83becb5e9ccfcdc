import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import skellam

from fedmia.errors import ConfigError
from fedmia.privacy.accounting import Account, Neighbours, gaussian_release
from fedmia.privacy.distributed import (
    ORDERS,
    account_of,
    discrete_gaussian_divergences,
    skellam_divergences,
    unlikeness,
)
from fedmia.secagg.distributed_noise import DistributedNoise, NoiseStatement

DELTA = 1e-5


def statement(mechanism="skellam", l2=10.0, l1=100.0, variance=400, survivors=10, dimension=64):
    return NoiseStatement(mechanism, l2, l1, Fraction(variance), 1.0, survivors, dimension, ())


def log_discrete_gaussian(variance, reach):
    x = np.arange(-reach, reach + 1)
    logs = -(x**2) / (2 * variance)
    return logs - np.logaddexp.reduce(logs)


def log_sum_of_shares(variance, shares, reach):
    one = np.exp(log_discrete_gaussian(variance, reach))
    total = one
    for _ in range(shares - 1):
        total = np.convolve(total, one)
    with np.errstate(divide="ignore"):
        return np.log(total)


def divergence(log_p, shift, order):
    """The Rényi divergence of a distribution on the integers from itself, moved."""
    moved, still = log_p[:-shift], log_p[shift:]
    there = np.isfinite(moved) & np.isfinite(still) & (np.minimum(moved, still) > -600)
    moved, still = moved[there], still[there]
    return np.logaddexp.reduce(order * moved + (1 - order) * still) / (order - 1)


@pytest.mark.parametrize("variance", [2, 10, 100])
@pytest.mark.parametrize("shift", [1, 3])
@pytest.mark.parametrize("order", [2, 5, 20])
def test_the_skellam_bound_is_above_the_divergence_of_moved_noise(variance, shift, order):
    log_p = skellam.logpmf(np.arange(-400, 401), variance / 2, variance / 2)
    exact = divergence(log_p, shift, order)
    (bound,) = skellam_divergences(shift, shift, variance, np.array([float(order)]))
    assert exact <= bound
    if variance == 100:
        assert bound < 1.1 * exact


def test_the_skellam_bound_by_hand():
    (bound,) = skellam_divergences(l1=6.0, l2=2.0, variance=10.0, orders=np.array([3.0]))
    assert bound == pytest.approx(3 * 4 / 20 + min((5 * 4 + 36) / 400, 18 / 20))
    (bound,) = skellam_divergences(l1=1.0, l2=1.0, variance=0.5, orders=np.array([9.0]))
    assert bound == pytest.approx(9 / 1 + min((17 + 6) / 1, 3 / 1))


@pytest.mark.parametrize("variance", [0.2, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("shares", [2, 3, 8])
def test_a_sum_of_shares_is_as_like_a_discrete_gaussian_as_tau_says(variance, shares):
    reach = int(14 * math.sqrt(variance) + 8)
    ours = log_sum_of_shares(variance, shares, reach)
    middle, width = len(ours) // 2, int(6 * math.sqrt(shares * variance))
    near = slice(middle - width, middle + width + 1)
    theirs = log_discrete_gaussian(shares * variance, middle)
    assert np.max(np.abs(ours[near] - theirs[near])) <= unlikeness(variance, shares) / 2


@pytest.mark.parametrize("variance", [0.3, 0.5, 2.0])
@pytest.mark.parametrize("shares", [1, 2, 8])
@pytest.mark.parametrize("order", [2, 8])
@pytest.mark.parametrize("dimension", [1, 4])
def test_the_discrete_gaussian_bound_is_above_the_divergence(variance, shares, order, dimension):
    reach = int(14 * math.sqrt(variance) + 8)
    one = divergence(log_sum_of_shares(variance, shares, reach), 1, order)
    (bound,) = discrete_gaussian_divergences(
        math.sqrt(dimension), shares * variance, shares, dimension, np.array([float(order)])
    )
    assert dimension * one <= bound * (1 + 1e-9)
    if variance == 2.0:
        assert bound < 1.001 * dimension * one


def test_tau_by_hand():
    assert unlikeness(0.1, 1) == 0
    wanted = 10 * (math.exp(-0.1 * math.pi**2) + math.exp(-0.4 * math.pi**2 / 3))
    assert unlikeness(0.1, 3) == pytest.approx(wanted)


@pytest.mark.parametrize("mechanism", ["skellam", "discrete_gaussian"])
@pytest.mark.parametrize("z", [1.0, 8.0])
def test_fine_noise_costs_as_much_as_gaussian_noise_by_rdp(mechanism, z):
    fine = statement(mechanism, l2=1e5, l1=8e5, variance=int((z * 1e5) ** 2))
    gaussian = Account(gaussian_release(z), Neighbours.ADD_REMOVE, DELTA)
    for rounds in (1, 30):
        ours = account_of(fine, DELTA).epsilon(rounds)
        assert ours == pytest.approx(gaussian.epsilon_rdp(rounds), rel=0.03)
        assert ours > gaussian.epsilon(rounds)


def test_to_replace_a_client_costs_as_much_as_twice_the_sensitivity():
    account = account_of(statement(), DELTA)
    twice = account_of(statement(l2=20.0, l1=200.0), DELTA)
    there = account.under(Neighbours.REPLACE_ONE)
    assert there.neighbours is Neighbours.REPLACE_ONE
    assert there.epsilon(3) == twice.epsilon(3) > account.epsilon(3)


@pytest.mark.parametrize("mechanism", ["skellam", "discrete_gaussian"])
def test_epsilon_grows_with_rounds_and_falls_with_noise(mechanism):
    account = account_of(statement(mechanism), DELTA)
    curve = account.curve([0, 1, 2, 10])
    assert curve[0] == 0
    assert curve == sorted(set(curve))
    assert account_of(statement(mechanism, variance=900), DELTA).epsilon(10) < curve[-1]
    assert account.affordable(curve[-1], 50) == 10
    assert account.epsilon_rdp(10) == curve[-1]
    assert account.method == "RDP"


def test_few_granules_of_noise_cost_more_than_many():
    coarse = statement("discrete_gaussian", l2=1.0, l1=1.0, variance=2, survivors=10)
    fine = statement("discrete_gaussian", l2=100.0, l1=1e3, variance=20000, survivors=10)
    assert account_of(coarse, DELTA).epsilon(1) > account_of(fine, DELTA).epsilon(1)


@pytest.mark.parametrize("mechanism", ["skellam", "discrete_gaussian"])
def test_the_noise_of_the_clients_is_accounted_for_as_it_is_stated(mechanism):
    noise = DistributedNoise(
        mechanism,
        clip=2.0,
        noise_multiplier=4.0,
        bits=24,
        cohort=10,
        min_survivors=8,
        length=1000,
    )
    gaussian = Account(gaussian_release(4.0), Neighbours.ADD_REMOVE, DELTA)
    ours = account_of(noise.statement(), DELTA).epsilon(10)
    assert gaussian.epsilon(10) < ours < 1.2 * gaussian.epsilon_rdp(10)


def test_all_orders_are_integers_of_at_least_two():
    assert np.all(np.round(ORDERS) == ORDERS)
    assert ORDERS[0] == 2


def test_a_delta_out_of_range_is_told_in_one_line():
    with pytest.raises(ConfigError, match=r"delta=1: expected in \(0, 1\)"):
        replace(account_of(statement(), DELTA), delta=1)
