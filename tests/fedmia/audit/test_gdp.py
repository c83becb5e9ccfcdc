from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy.stats import norm

from fedmia.audit import (
    delta_of_epsilon,
    epsilon_of_mu,
    gaussian_epsilon_lower_bound,
    mu_ceiling,
    mu_lower_bound,
    mu_of_epsilon,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def textbook(epsilon, mu):
    return norm.cdf(mu / 2 - epsilon / mu) - np.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)


@pytest.mark.parametrize("mu", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0, 4.0])
def test_delta_is_the_textbook_formula_where_that_is_stable(epsilon, mu):
    expected = textbook(epsilon, mu)
    assert delta_of_epsilon(epsilon, mu) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_delta_without_privacy_loss_is_the_total_variation():
    assert delta_of_epsilon(0.0, 1.0) == pytest.approx(2 * norm.cdf(0.5) - 1)
    assert delta_of_epsilon(0.5, 0.0) == 0.0


def test_delta_is_found_where_the_textbook_formula_overflows():
    # Φ(a) − e^ε Φ(b) = ∫ φ(x − a)(1 − e^{−μx}) dx over x > 0: no difference, and no e^ε
    epsilon, mu = 800.0, 20.0
    x = np.linspace(0, 3, 200_001)
    log_density = norm.logpdf(epsilon / mu - mu / 2 + x)
    shift = log_density.max()
    integral = np.trapezoid(np.exp(log_density - shift) * -np.expm1(-mu * x), x)
    expected = np.log(integral) + shift
    assert expected < np.log(1e-100)
    assert np.log(delta_of_epsilon(epsilon, mu)) == pytest.approx(expected, abs=1e-6)
    with np.errstate(over="ignore"):
        assert np.exp(epsilon) == np.inf


@pytest.mark.parametrize(
    ("epsilon", "mu"), [(1, 0.268), (2, 0.502), (4, 0.925), (8, 1.666)], ids=str
)
def test_mu_of_well_known_guarantees(epsilon, mu):
    assert round(mu_of_epsilon(epsilon, 1e-5), 3) == mu


@pytest.mark.parametrize("delta", [1e-100, 1e-5, 0.3])
@pytest.mark.parametrize("epsilon", [1e-3, 1.0, 50.0, 5000.0])
def test_epsilon_and_mu_are_inverse(epsilon, delta):
    mu = mu_of_epsilon(epsilon, delta)
    assert epsilon_of_mu(mu, delta) == pytest.approx(epsilon, rel=1e-6)


def test_a_delta_above_the_total_variation_needs_no_epsilon():
    assert epsilon_of_mu(0.1, 0.05) == 0.0
    assert epsilon_of_mu(0.0, 1e-5) == 0.0
    assert epsilon_of_mu(1e-12, 1e-5) == 0.0


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1])
def test_a_delta_without_a_finite_epsilon_is_refused(delta):
    with pytest.raises(ValueError, match=f"delta={delta}"):
        epsilon_of_mu(1.0, delta)
    with pytest.raises(ValueError, match=f"delta={delta}"):
        mu_of_epsilon(1.0, delta)


def test_a_perfect_attack_proves_the_ceiling_of_the_half_it_is_counted_on():
    members = np.arange(200) < 100
    assert mu_lower_bound(members, members, 0.95, rng()) == pytest.approx(mu_ceiling(50, 50, 0.95))
    rate = 1 - 0.025 ** (1 / 50)  # exact upper end of none of 50
    assert mu_ceiling(50, 50, 0.95) == pytest.approx(-2 * norm.ppf(rate))


def test_the_clopper_pearson_end_has_exactly_the_tail_it_promises():
    # one event or none of 4: P[Bin(4, p) ≤ 1] = (1 − confidence)/2 at the upper end
    from fedmia.audit.rates import upper_rate

    p = Fraction(float(upper_rate(1, 4, 0.975))).limit_denominator(10**9)
    tail = sum(comb(4, k) * p**k * (1 - p) ** (4 - k) for k in (0, 1))
    assert float(tail) == pytest.approx(0.025, abs=1e-7)
    assert upper_rate(4, 4, 0.975) == 1.0


def test_chance_and_inverted_attacks_prove_nothing():
    members = np.arange(400) < 200
    assert mu_lower_bound(-members.astype(float), members, 0.95, rng()) == 0.0
    assert mu_lower_bound(np.zeros(400), members, 0.95, rng()) == 0.0
    found = [mu_lower_bound(rng(s).normal(size=400), members, 0.95, rng(s)) for s in range(200)]
    assert np.mean(np.array(found) > 0) <= 0.05


@pytest.mark.parametrize("mu", [0.5, 1.5])
def test_gaussian_noise_is_rarely_overstated_and_not_missed(mu):
    members = np.arange(2000) < 1000
    found = np.array(
        [
            mu_lower_bound(mu * members + rng(s).normal(size=2000), members, 0.95, rng(s + 9999))
            for s in range(120)
        ]
    )
    assert np.mean(found > mu) <= 0.05
    assert mu - 0.45 < found.mean() < mu


def test_its_epsilon_is_that_of_its_mu_and_beats_the_bound_that_assumes_nothing():
    from fedmia.audit import epsilon_lower_bound

    members = np.arange(4000) < 2000
    scores = members + rng().normal(size=4000)
    found = gaussian_epsilon_lower_bound(scores, members, 1e-5, 0.95, rng(1))
    assert found == epsilon_of_mu(mu_lower_bound(scores, members, 0.95, rng(1)), 1e-5)
    assert epsilon_lower_bound(scores, members, 1e-5, 0.95, rng(1)) < found
    assert found < epsilon_of_mu(1.0, 1e-5)
