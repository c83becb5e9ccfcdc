import math

import dp_accounting
import pytest

from fedmia.privacy.gaussian import epsilon_of_gaussian, mu_of_gaussian


@pytest.mark.parametrize("mu", [0.01, 0.3, 1.0, 4.0, 30.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-5, 0.01])
def test_epsilon_is_that_of_dp_accounting(mu, delta):
    wanted = dp_accounting.get_epsilon_gaussian(1 / mu, delta)
    assert epsilon_of_gaussian(mu, delta) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("epsilon", "mu"), [(1, 0.268), (2, 0.502), (4, 0.925), (8, 1.666)], ids=str
)
def test_mu_has_its_published_values_at_delta_one_in_a_hundred_thousand(epsilon, mu):
    assert mu_of_gaussian(epsilon, 1e-5) == pytest.approx(mu, abs=6e-4)


def test_delta_at_epsilon_is_the_area_between_two_normal_curves():
    epsilon = epsilon_of_gaussian(1.0, 0.05)
    phi = lambda x: 0.5 * math.erfc(-x / math.sqrt(2))  # noqa: E731
    assert phi(0.5 - epsilon) - math.exp(epsilon) * phi(-0.5 - epsilon) == pytest.approx(0.05)


def test_no_signal_costs_nothing_and_no_noise_everything():
    assert epsilon_of_gaussian(0.0, 1e-5) == 0
    assert epsilon_of_gaussian(1e-7, 1e-5) == 0
    assert epsilon_of_gaussian(math.inf, 1e-5) == math.inf


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0, 50.0])
def test_mu_and_epsilon_are_inverse(epsilon):
    assert epsilon_of_gaussian(mu_of_gaussian(epsilon, 1e-5), 1e-5) == pytest.approx(
        epsilon, abs=1e-6
    )
