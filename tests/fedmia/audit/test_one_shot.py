import numpy as np
import pytest
from scipy.special import betaincinv
from scipy.stats import anderson, beta, norm

from fedmia.audit import (
    cosines,
    epsilon_of_gaussians,
    epsilon_of_mu,
    max_cosines,
    normality,
    one_shot_all_rounds,
    one_shot_final,
    one_shot_lower_bound,
)


def rng(seed=0):
    return np.random.default_rng(seed)


# two normal laws


@pytest.mark.parametrize("mu", [0.3, 1.5, 30.0])
@pytest.mark.parametrize("delta", [1e-12, 1e-5, 0.05])
def test_two_laws_of_equal_variance_are_the_gaussian_mechanism(mu, delta):
    expected = epsilon_of_mu(mu, delta)
    for laws in (((0, 1), (mu, 1)), ((5, 2), (5 - 2 * mu, 2)), ((mu, 1), (0, 1))):
        assert epsilon_of_gaussians(*laws, delta) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("laws", [((0, 1), (1, 1.3)), ((0, 1), (1, 0.7)), ((0, 1), (0, 2.0))])
@pytest.mark.parametrize("delta", [1e-4, 0.05])
def test_unequal_variances_agree_with_integrating_the_densities(laws, delta):
    epsilon = epsilon_of_gaussians(*laws, delta)

    x = np.linspace(-20, 20, 400_001)

    def excess(p, q):
        above = norm.pdf(x, *p) - np.exp(epsilon) * norm.pdf(x, *q)
        return np.trapezoid(np.maximum(above, 0), x)

    found = max(excess(*laws), excess(*laws[::-1]))
    assert found == pytest.approx(delta, rel=2e-3)


def test_nearly_equal_variances_are_no_special_case():
    expected = epsilon_of_gaussians((0, 1), (1, 1), 1e-5)
    for ratio in (1 - 1e-9, 1 + 1e-9, 1 + 1e-14):
        assert epsilon_of_gaussians((0, 1), (1, ratio), 1e-5) == pytest.approx(expected, rel=1e-5)


def test_equal_laws_need_no_epsilon():
    assert epsilon_of_gaussians((1, 2), (1, 2), 1e-5) == 0.0


@pytest.mark.parametrize("bad", [((0, 1), (0, 0), 0.1), ((0, 1), (1, 1), 0.0)])
def test_laws_without_a_finite_epsilon_are_refused(bad):
    with pytest.raises(ValueError, match="std > 0, δ in"):
        epsilon_of_gaussians(*bad)


# normality


def test_the_statistic_behind_the_p_value_is_scipys():
    x = rng(5).normal(size=50)
    a = anderson(x, "norm", method="interpolate").statistic * (1 + 0.75 / 50 + 2.25 / 50**2)
    assert a < 0.6  # the branch below
    pieces = (0.9177 - 4.279 * a - 1.38 * a**2, -8.318 + 42.796 * a - 59.938 * a**2)
    expected = np.exp(pieces[0]) if a > 0.34 else 1 - np.exp(pieces[1])
    if a > 0.2:
        assert normality(x) == pytest.approx(expected)


def test_p_values_of_normal_data_are_uniform():
    found = np.array([normality(7 + 3 * rng(s).normal(size=40)) for s in range(1000)])
    for level in (0.01, 0.05, 0.1, 0.3, 0.5, 0.8):
        assert abs(np.mean(found <= level) - level) < 0.04


def test_data_of_another_law_are_told():
    assert normality(rng().exponential(size=60)) < 1e-3
    assert normality(np.append(rng().normal(size=500), 1e6)) == 0.0
    with pytest.raises(ValueError, match="at least 8"):
        normality(np.arange(7.0))


# cosines


def test_cosines_of_three_directions_by_hand():
    canaries = [[1.0, 0], [3, 4], [0, -2]]
    np.testing.assert_allclose(cosines(canaries, [2.0, 0]), [1, 0.6, 0])
    np.testing.assert_allclose(max_cosines(canaries, [[2.0, 0], [0, -5]]), [1, 0.6, 1])


def test_vectors_without_direction_or_of_other_length_are_refused():
    with pytest.raises(ValueError, match="norm 0"):
        cosines([[1.0, 0]], [0.0, 0])
    with pytest.raises(ValueError, match=r"expected \(k, d\)"):
        cosines([[1.0, 0]], [1.0, 0, 0])


def run(generator, k, d, strength):
    """One training: the canaries' directions, each with some strength, in unit noise."""
    c = generator.normal(size=(k, d))
    c /= np.linalg.norm(c, axis=1, keepdims=True)
    return c, strength * c.sum(axis=0) + generator.normal(size=d)


def test_the_estimate_is_near_the_epsilon_of_the_noise():
    k, d, strength = 200, 20_000, 3.0
    c, change = run(rng(1), k, d, strength)
    found = one_shot_final(cosines(c, change), d, 1e-5)
    assert found.epsilon == pytest.approx(epsilon_of_mu(strength, 1e-5), rel=0.2)
    assert found.seen == pytest.approx((strength / np.sqrt(d), 1 / np.sqrt(d)), rel=0.15)
    assert found.normality > 0.001


def test_canaries_that_were_never_sent_have_a_small_epsilon():
    fresh, _ = run(rng(2), 400, 2000, 0.0)
    _, change = run(rng(3), 50, 2000, 2.0)
    assert one_shot_final(cosines(fresh, change), 2000, 0.05).epsilon < 0.4


def test_all_rounds_compare_with_directions_that_were_drawn_and_never_sent():
    g = rng(4)
    c, _ = run(g, 100, 3000, 0.0)
    fresh, _ = run(g, 100, 3000, 0.0)
    changes = np.stack([2.0 * c[t::5].sum(axis=0) + g.normal(size=3000) for t in range(5)])
    seen, unseen = max_cosines(c, changes), max_cosines(fresh, changes)
    found = one_shot_all_rounds(seen, unseen, 1e-3)
    laws = [(x.mean(), x.std(ddof=1)) for x in (unseen, seen)]
    assert found.epsilon == epsilon_of_gaussians(*laws, 1e-3)
    assert one_shot_all_rounds(fresh @ changes[0], unseen, 1e-3).normality > 0
    assert one_shot_all_rounds(unseen, unseen, 1e-3).epsilon == 0.0 < found.epsilon


# the lower bound


def planted(generator, k, d, mu):
    """Cosines of k independent trials whose null law is exact."""
    null = generator.normal(size=(k, d))
    null[:, 0] += mu
    return null[:, 0] / np.linalg.norm(null, axis=1)


@pytest.mark.parametrize("jeffreys", [False, True])
@pytest.mark.parametrize("mu", [0.0, 2.0])
def test_gaussian_noise_is_rarely_overstated(mu, jeffreys):
    d, delta, found = 50, 1e-2, []
    for seed in range(300):
        seen = planted(rng(seed), 200, d, mu)
        found.append(one_shot_lower_bound(seen, d, delta, 0.95, rng(seed), jeffreys=jeffreys))
    truth = epsilon_of_mu(mu, delta)
    assert np.mean(np.array(found) > truth) <= 0.05 + (0.02 if jeffreys else 0)
    assert np.mean(found) >= 0.4 * truth


def test_the_false_positives_are_those_of_a_random_direction():
    # every canary has the same cosine: no misses, and the tail of that cosine
    t, d = 0.4, 12
    found = one_shot_lower_bound(np.full(40, t), d, 0.0, 0.95, rng())
    c = rng(5).normal(size=(400_000, d))
    tail = np.mean(c[:, 0] / np.linalg.norm(c, axis=1) >= t)
    assert found == pytest.approx(np.log(0.05 ** (1 / 20) / tail), abs=0.02)
    assert tail == pytest.approx(beta.sf(t**2, 0.5, (d - 1) / 2) / 2, rel=0.05)
    sharper = one_shot_lower_bound(np.full(40, t), d, 0.0, 0.95, rng(), jeffreys=True)
    gain = np.log((1 - betaincinv(0.5, 20.5, 0.95)) / 0.05 ** (1 / 20))
    assert sharper - found == pytest.approx(gain)


def test_the_null_is_exact_however_few_dimensions():
    assert one_shot_lower_bound(np.full(40, -0.99), 2, 0.0, 0.95, rng()) == 0.0
    # in two dimensions the angle is uniform: P[cos < ½] = 2/3, and none of 1,000 canaries was there
    found = one_shot_lower_bound(np.full(2000, 0.5), 2, 0.0, 0.95, rng())
    assert found == pytest.approx(np.log(2 / 3 / (1 - 0.05 ** (1 / 1000))))


def test_perfect_canaries_prove_a_finite_bound():
    assert 500 < one_shot_lower_bound(np.ones(40), 1000, 0.0, 0.95, rng()) < np.inf
    assert one_shot_lower_bound([0.5], 1000, 0.0, 0.95, rng()) == 0.0


def test_what_is_no_cosine_is_refused():
    for seen, d in (([1.1, 0], 10), ([np.nan, 0], 10), ([0.1, 0], 1)):
        with pytest.raises(ValueError, match="expected cosines"):
            one_shot_lower_bound(seen, d, 0.0, 0.95, rng())
