import logging
import math

import numpy as np
import pytest

from fedmia.privacy.rdp import ORDERS, divergences, epsilon_of_divergences
from fedmia.privacy.release import Sampling

AT_TWO = ORDERS == 2.0


def test_a_poisson_divergence_of_order_two_has_its_closed_form():
    found = divergences(1.5, Sampling("poisson", 0.3))[AT_TWO]
    assert found == pytest.approx(math.log1p(0.3**2 * math.expm1(1 / 1.5**2)), rel=1e-9)


def test_a_divergence_of_fixed_sizes_of_order_two_is_that_of_theorem_27():
    # ln(1 + q²·min(4(e^{ε(2)} − 1), 2·e^{ε(2)})), ε(2) = 1/σ²
    found = divergences(1.5, Sampling("fixed", sample=30, population=100))[AT_TWO]
    growth = math.exp(1 / 1.5**2)
    wanted = math.log1p(0.3**2 * min(4 * (growth - 1), 2 * growth))
    assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("sampling", [Sampling("poisson", 0.1), Sampling("fixed", 1.0, 10, 100)])
def test_more_noise_costs_less(sampling):
    little, more = divergences(1.0, sampling), divergences(2.0, sampling)
    known = np.isfinite(little) & np.isfinite(more)
    assert known.sum() > 60
    assert np.all(more[known] <= little[known])


def test_the_librarys_warnings_of_orders_it_leaves_out_are_kept(caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        before = logging.getLogger("absl").level
        divergences(1.0, Sampling("poisson", 0.1111))
        assert logging.getLogger("absl").level == before
    assert not caplog.records


def test_epsilon_of_one_order_by_hand():
    wanted = 0.7 + math.log(0.5) - math.log(1e-5 * 2)
    assert epsilon_of_divergences(np.array([0.7]), 1e-5, np.array([2.0])) == pytest.approx(wanted)


def test_infinite_divergences_are_left_out_and_leave_nothing_if_all_are():
    found = np.where(ORDERS == 8, 0.5, np.inf)
    wanted = 0.5 + math.log(7 / 8) - math.log(8e-5) / 7
    assert epsilon_of_divergences(found, 1e-5) == pytest.approx(wanted)
    assert epsilon_of_divergences(np.full(len(ORDERS), np.inf), 1e-5) == math.inf
