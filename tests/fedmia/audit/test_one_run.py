from itertools import product

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from fedmia.audit import (
    epsilon_of_mu,
    epsilon_one_run_from_attacks,
    matched_pairs,
    one_run_ceiling,
    one_run_epsilon,
    one_run_lower_bound,
    one_run_p_value,
)
from fedmia.audit.one_run import largest_bound


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("m", "share", "printed"),
    [
        (1000, 0.6, 0.30),
        (1000, 0.75, 0.98),
        (1000, 0.9, 2.02),
        (1000, 1.0, 5.78),
        (100, 0.6, 0.05),
        (100, 0.75, 0.70),
        (100, 0.9, 1.63),
        (100, 1.0, 3.49),
    ],
)
def test_well_known_bounds(m, share, printed):
    assert round(one_run_epsilon(m, m, round(share * m), 1e-5, 0.95), 2) == printed


def test_without_delta_the_p_value_is_the_binomial_tail():
    assert one_run_p_value(1.0, 0.0, 100, 50, 45) == binom.sf(44, 50, expit(1.0))
    assert one_run_p_value(1.0, 0.0, 100, 50, 0) == 1.0


def test_the_p_value_is_the_theorem_summed_by_hand():
    m, r, v, delta, q = 20, 9, 7, 1e-3, expit(0.4)
    mass = [binom.pmf(k, r, q) for k in range(r + 1)]
    alpha = max(sum(mass[v - i : v]) / i for i in range(1, v + 1))
    expected = sum(mass[v:]) + 2 * m * delta * alpha
    assert one_run_p_value(0.4, delta, m, r, v) == pytest.approx(expected, abs=1e-12)


def test_the_bound_is_where_the_p_value_reaches_the_level():
    found = one_run_epsilon(500, 200, 150, 1e-5, 0.9)
    assert one_run_p_value(found, 1e-5, 500, 200, 150) == pytest.approx(0.1, abs=1e-6)


def test_chance_and_inverted_guesses_prove_nothing():
    assert one_run_epsilon(1000, 1000, 500, 1e-5, 0.95) == 0.0
    assert one_run_epsilon(1000, 1000, 0, 1e-5, 0.95) == 0.0
    assert one_run_epsilon(10, 0, 0, 0.0, 0.95) == 0.0


def test_all_right_proves_the_ceiling_and_no_more():
    # q^r = 1 − confidence
    q = 0.05 ** (1 / 40)
    assert one_run_ceiling(40, 40, 0.0, 0.95) == pytest.approx(np.log(q / (1 - q)))
    bounds = [one_run_epsilon(40, 40, v, 1e-6, 0.95) for v in range(41)]
    assert bounds == sorted(bounds)
    assert bounds[-1] == one_run_ceiling(40, 40, 1e-6, 0.95)


@pytest.mark.parametrize("counts", [(5, 6, 3), (5, 3, 4), (5, 3, -1)])
def test_counts_that_do_not_nest_are_refused(counts):
    with pytest.raises(ValueError, match="expected 0 ≤"):
        one_run_p_value(1.0, 0.0, *counts)


@pytest.mark.parametrize(("delta", "confidence"), [(-0.1, 0.9), (1.0, 0.9), (0.0, 1.0)])
def test_levels_out_of_range_are_refused(delta, confidence):
    with pytest.raises(ValueError, match="delta="):
        one_run_epsilon(10, 10, 9, delta, confidence)
    with pytest.raises(ValueError, match="delta="):
        epsilon_one_run_from_attacks({}, [0, -1], [0, 0], delta, confidence, rng())


def correct_guesses(scores, included, k):
    """The right ones among k guesses at either end of each run, scores of shape (runs, m)."""
    ranked = np.take_along_axis(included, np.argsort(-scores, axis=1), axis=1)
    return ranked[:, :k].sum(axis=1) + (~ranked[:, -k:]).sum(axis=1)


def proved(right, m, r, delta):
    known = {v: one_run_epsilon(m, r, int(v), delta, 0.95) for v in np.unique(right)}
    return np.array([known[v] for v in right])


@pytest.mark.parametrize("truth", [0.0, 1.0, 3.0])
def test_randomised_response_is_overstated_at_most_as_often_as_promised(truth):
    m = 300
    right = rng(1).binomial(m, expit(truth), size=20_000)
    found = proved(right, m, m, 0.0)
    assert np.mean(found > truth) <= 0.05
    assert found.mean() > 0.8 * truth - 0.05


@pytest.mark.parametrize("mu", [0.5, 2.0])
def test_the_gaussian_mechanism_is_rarely_overstated(mu):
    m, k, delta, g = 400, 40, 1e-3, rng(2)
    included = g.random((1500, m)) < 0.5
    # the two values of a coin lie mu standard deviations apart
    scores = mu * included + g.normal(size=included.shape)
    found = proved(correct_guesses(scores, included, k), m, 2 * k, delta)
    truth = epsilon_of_mu(mu, delta)
    assert np.mean(found > truth) <= 0.05
    assert found.mean() > 0.15 * truth


def test_the_guesses_are_the_ends_of_the_ranking():
    g = rng(3)
    included = g.random(200) < 0.5
    scores = included + g.normal(size=200)
    v = int(correct_guesses(scores[None], included[None], 30)[0])
    found = one_run_lower_bound(scores, included, 30, 30, 1e-5, 0.95, rng())
    assert found == one_run_epsilon(200, 60, v, 1e-5, 0.95) > 0.5
    assert one_run_lower_bound(-scores, included, 30, 30, 1e-5, 0.95, rng()) == 0.0


def test_equal_scores_are_no_hint_at_the_order_of_the_records():
    included = np.arange(400) < 200
    found = one_run_lower_bound(np.zeros(400), included, 200, 200, 0.0, 0.95, rng())
    assert found < 0.3


@pytest.mark.parametrize("guesses", [(-1, 2), (6, 5)])
def test_guesses_beyond_the_canaries_are_refused(guesses):
    with pytest.raises(ValueError, match="guesses_in="):
        one_run_lower_bound(np.arange(10.0), np.arange(10) < 5, *guesses, 0.0, 0.95, rng())


# pairs of a run whose memberships are drawn without replacement


def layout(targets=10, each=20, held_out=400, classes=4):
    owner = np.concatenate([np.repeat(np.arange(targets), each), np.full(held_out, -1)])
    return owner, np.arange(owner.size) % classes


def test_pairs_share_a_label_and_no_record():
    owner, labels = layout()
    owner[::9] = -2
    inside, outside = matched_pairs(owner, labels, rng())
    assert np.all(owner[inside] >= 0)
    assert np.all(owner[outside] == -1)
    assert np.array_equal(labels[inside], labels[outside])
    assert np.unique(np.append(inside, outside)).size == 2 * inside.size
    assert inside.size == (owner >= 0).sum()


def test_the_rarer_kind_of_a_label_limits_its_pairs():
    owner, labels = np.array([0, 0, 0, -1, 1, -1, -1]), np.array([0, 0, 0, 0, 1, 2, 2])
    inside, outside = matched_pairs(owner, labels, rng())
    assert labels[inside].tolist() == [0]
    assert outside.tolist() == [3]


def test_which_of_a_pair_is_the_member_is_a_fair_coin_for_each_pair():
    # two members among four records of a label, every split equally likely
    counts = {}
    for inside in product([False, True], repeat=4):
        if sum(inside) == 2:
            owner = np.where(inside, 0, -1)
            for seed in range(300):
                a, b = matched_pairs(owner, np.zeros(4), rng(seed))
                key = tuple(sorted(zip(np.minimum(a, b), np.maximum(a, b), strict=True)))
                coins = tuple(bool(x < y) for x, y in sorted(zip(a, b, strict=True), key=min))
                counts.setdefault(key, []).append(coins)
    for coins in counts.values():  # per set of pairs, the four falls are equally frequent
        shares = [coins.count(fall) / len(coins) for fall in product([False, True], repeat=2)]
        np.testing.assert_allclose(shares, 0.25, atol=0.08)
    assert len(counts) == 3


def test_a_perfect_attack_proves_the_ceiling_and_more_attacks_cost():
    owner, labels = layout()
    perfect = (owner == np.arange(10)[:, None]).astype(float)
    one = epsilon_one_run_from_attacks({"a": perfect}, owner, labels, 0.0, 0.95, rng(), (1.0,))
    assert one == pytest.approx((one_run_ceiling(200, 200, 0.0, 0.95),) * 2)
    both = {"a": perfect, "b": -perfect}
    two = epsilon_one_run_from_attacks(both, owner, labels, 0.0, 0.95, rng(), (1.0, 0.5))
    assert two == pytest.approx((one_run_ceiling(200, 200, 0.0, 1 - 0.05 / 4),) * 2)
    assert epsilon_one_run_from_attacks({}, owner, labels, 0.0, 0.95, rng()) == (0.0, 0.0)


def test_an_inverted_attack_proves_nothing():
    owner, labels = layout()
    inverted = -(owner == np.arange(10)[:, None]).astype(float)
    found, ceiling = epsilon_one_run_from_attacks({"a": inverted}, owner, labels, 0, 0.95, rng())
    assert found == 0.0
    assert ceiling > 3


def test_scores_that_never_differ_prove_nothing():
    owner, labels = layout()
    scores = np.repeat(np.arange(10.0)[:, None], owner.size, axis=1)
    found = [
        epsilon_one_run_from_attacks({"a": scores}, owner, labels, 0.0, 0.95, rng(s))[0]
        for s in range(40)
    ]
    assert np.mean(np.array(found) > 0) <= 0.1


def test_replacing_a_record_under_gaussian_noise_is_rarely_overstated():
    # a record moves its own row by mu when trained on: pairs differ by 2·mu over √2
    mu, delta, found = 1.0, 1e-3, []
    owner, labels = layout(held_out=250)
    member = owner == np.arange(10)[:, None]
    for seed in range(60):
        scores = {"a": mu * member + rng(seed).normal(size=member.shape)}
        found.append(epsilon_one_run_from_attacks(scores, owner, labels, delta, 0.95, rng(seed)))
    truth = epsilon_of_mu(np.sqrt(2) * mu, delta)  # both records' scores change by mu
    bounds = np.array(found)[:, 0]
    assert np.mean(bounds > truth) <= 0.05
    assert 0.6 < bounds.mean() < truth


@pytest.mark.parametrize("shares", [(), (0.0,), (0.5, 1.1)])
def test_shares_out_of_range_are_refused(shares):
    owner, labels = layout()
    with pytest.raises(ValueError, match=r"shares=.*expected values in \(0, 1\]"):
        epsilon_one_run_from_attacks({}, owner, labels, 0.0, 0.95, rng(), shares)


def test_scores_that_are_not_finite_are_refused():
    owner, labels = layout()
    scores = np.full((10, owner.size), np.nan)
    with pytest.raises(ValueError, match="finite"):
        epsilon_one_run_from_attacks({"a": scores}, owner, labels, 0.0, 0.95, rng())
    with pytest.raises(ValueError, match="finite"):
        one_run_lower_bound([np.inf, 0], [True, False], 1, 1, 0.0, 0.95, rng())


@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-2])
def test_the_largest_of_several_bounds_is_the_maximum_of_all(delta):
    draws = rng(3)
    guesses = draws.choice([20, 100, 200], size=60)
    found = [(int(r), int(draws.binomial(r, 0.7))) for r in guesses]
    each = [one_run_epsilon(200, r, v, delta, 0.99) for r, v in found]
    assert largest_bound(200, found, delta, 0.99) == pytest.approx(max(each), abs=1e-8)
    assert largest_bound(200, [(20, 3)], delta, 0.99) == 0.0
    assert largest_bound(200, [], delta, 0.99) == 0.0
