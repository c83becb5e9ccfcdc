import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from fedmia.audit import (
    epsilon_ceiling,
    epsilon_from_attacks,
    epsilon_lower_bound,
    label_prior,
    raw_features,
    untrained,
)
from fedmia.membership import Membership
from fedmia.metrics import auc


def rng(seed=0):
    return np.random.default_rng(seed)


def pooled_auc(scores, owner):
    labels = np.zeros(owner.size, dtype=int)
    result = Membership(fprs=[], bootstrap=100).evaluate(scores, owner, labels, rng())
    return result["auc"], result["auc_ci"]


# ε


@pytest.mark.parametrize(
    ("trials", "printed"), [(50, 2.57), (100, 3.28), (500, 4.91), (1000, 5.60), (10_000, 7.90)]
)
def test_the_ceiling_is_that_of_an_attack_without_errors(trials, printed):
    assert round(epsilon_ceiling(trials, trials, 1e-5, 0.95), 2) == printed


def test_a_perfect_attack_proves_the_ceiling_of_the_half_it_is_counted_on():
    members = np.arange(200) < 100
    bound = epsilon_lower_bound(members.astype(float), members, 1e-5, 0.95, rng())
    assert bound == pytest.approx(epsilon_ceiling(50, 50, 1e-5, 0.95))


def test_the_bound_is_the_formula_with_clopper_pearson_rates():
    # two possible scores, so that every split chooses the same threshold
    members = np.arange(400) < 200
    scores = np.where(members, np.arange(400) % 4 > 0, np.arange(400) % 20 == 0).astype(float)
    generator = rng(5)
    found = epsilon_lower_bound(scores, members, 0.01, 0.9, generator)
    again = rng(5)
    judged = np.ones(400, dtype=bool)
    for group in (np.flatnonzero(members), np.flatnonzero(~members)):
        judged[again.permutation(group)[:100]] = False
    above = scores[judged] == 1
    false, missed = (above & ~members[judged]).sum(), (~above & members[judged]).sum()

    def upper(count):
        return binomtest(int(count), 100).proportion_ci(0.9, method="exact").high

    fpr, fnr = upper(false), upper(missed)
    expected = max(np.log((1 - 0.01 - fnr) / fpr), np.log((1 - 0.01 - fpr) / fnr))
    assert found == pytest.approx(expected)
    assert expected > 1


def test_the_bound_uses_the_direction_that_proves_more():
    # nearly no misses, many false alarms: only a low score says something
    members = np.arange(4000) < 2000
    scores = np.where(members, 1.0, rng().random(4000) < 0.5)
    assert epsilon_lower_bound(scores, members, 0.0, 0.95, rng()) > 4


def exceeding(draw, truth, delta, repeats=300, trials=1000):
    members = np.arange(trials) < trials // 2
    bounds = [
        epsilon_lower_bound(draw(rng(s), members), members, delta, 0.95, rng(s + 10_000))
        for s in range(repeats)
    ]
    return np.mean(np.array(bounds) > truth), np.mean(bounds)


def test_randomised_response_is_rarely_overstated_and_not_missed():
    keep = np.e / (1 + np.e)  # ε = 1

    def draw(generator, members):
        return np.where(generator.random(members.size) < keep, members, ~members).astype(float)

    over, mean = exceeding(draw, truth=1.0, delta=0.0)
    assert over <= 0.05
    assert 0.6 < mean < 1.0


def test_the_gaussian_mechanism_is_rarely_overstated_and_not_missed():
    def delta_of(epsilon, mu=1.5):
        return norm.cdf(mu / 2 - epsilon / mu) - np.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)

    truth = brentq(lambda e: delta_of(e) - 0.05, 0, 20)

    def draw(generator, members):
        return 1.5 * members + generator.normal(size=members.size)

    over, mean = exceeding(draw, truth, delta=0.05)
    assert over <= 0.05
    assert 1 < mean < truth  # 250 counted trials of each kind see no rare event


def test_noise_proves_nothing():
    over, _ = exceeding(lambda g, m: g.normal(size=m.size), truth=0.0, delta=0.0, repeats=200)
    assert over <= 0.05


def test_too_few_records_prove_nothing():
    assert epsilon_lower_bound([1.0, 0, 0], [True, False, False], 1e-5, 0.95, rng()) == 0.0


@pytest.mark.parametrize(("delta", "confidence"), [(-0.1, 0.95), (1.0, 0.95), (0, 0), (0, 1.0)])
def test_levels_out_of_range_are_refused(delta, confidence):
    with pytest.raises(ValueError, match="delta="):
        epsilon_lower_bound([1.0, 0], [True, False], delta, confidence, rng())
    with pytest.raises(ValueError, match="delta="):
        epsilon_ceiling(10, 10, delta, confidence)


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        epsilon_lower_bound([np.nan, 0, 1, 2], np.arange(4) < 2, 0.0, 0.95, rng())


# several attacks on one federation


def layout(targets=10, each=20, held_out=1000):
    return np.concatenate([np.repeat(np.arange(targets), each), np.full(held_out, -1)])


def test_more_attacks_pay_for_being_tried():
    owner = layout()
    perfect = np.where(owner >= 0, 1.0, 0.0) * np.ones((10, 1))
    one = epsilon_from_attacks({"a": perfect}, owner, 1e-5, 0.95, rng())
    two = epsilon_from_attacks({"a": perfect, "b": perfect}, owner, 1e-5, 0.95, rng())
    assert one == pytest.approx(epsilon_ceiling(100, 500, 1e-5, 0.95))
    assert two == pytest.approx(epsilon_ceiling(100, 500, 1e-5, 0.975))
    assert epsilon_from_attacks({}, owner, 1e-5, 0.95, rng()) == 0.0


def test_every_held_out_record_is_one_trial_and_every_member_its_own():
    owner = layout(targets=4, each=50, held_out=200)
    owner[:10] = -2
    # members are told apart in their own row alone; each held-out record is a false alarm in one
    scores = (owner == np.arange(4)[:, None]).astype(float)
    scores[0, owner == -1] = 1.0
    alarms = [epsilon_from_attacks({"a": scores}, owner, 0.0, 0.95, rng(s)) for s in range(20)]
    # a quarter of the 200 records meets row 0: never missed, FPR about 1/4
    assert 2 < np.mean(alarms) < epsilon_ceiling(95, 100, 0.0, 0.95)
    assert len(set(alarms)) > 1


def test_the_best_of_many_useless_attacks_proves_nothing():
    owner, over = layout(held_out=300), 0
    for seed in range(100):
        scores = {str(a): rng(1000 * seed + a).normal(size=(10, owner.size)) for a in range(5)}
        over += epsilon_from_attacks(scores, owner, 1e-5, 0.95, rng(seed)) > 0
    assert over <= 5


# blind baselines


def test_exactly_stratified_shards_of_any_size_leave_the_label_prior_at_one_half():
    owner = np.concatenate([np.repeat([0, 1, 2], [10, 20, 70]), np.full(330, -1)])
    labels = np.concatenate([np.arange(size) % 10 for size in (10, 20, 70, 330)])
    assert np.all(label_prior(labels, owner, 3) == 0)
    assert pooled_auc(label_prior(labels, owner, 3), owner)[0] == 0.5


def test_the_label_prior_is_the_smoothed_log_ratio_of_shares():
    labels = np.array([0, 0, 1, 0, 1, 1, 1])
    owner = np.array([0, 0, 0, -1, -1, -1, -2])
    expected = np.log([(3 / 5) / (2 / 5), (2 / 5) / (3 / 5)])[labels]
    np.testing.assert_allclose(label_prior(labels, owner, 1), expected[None])


def test_a_target_with_its_own_labels_is_given_away_by_them():
    generator, owner = rng(), layout(targets=5, each=40, held_out=500)
    labels = generator.integers(10, size=owner.size)
    for k in range(5):
        labels[owner == k] = generator.choice([2 * k, 2 * k + 1], 40)
    assert pooled_auc(label_prior(labels, owner, 5), owner)[1][0] > 0.85


def blobs(generator, owner, stratified):
    if stratified:
        labels = np.concatenate([np.arange((owner == k).sum()) % 5 for k in range(-1, 4)])
        labels = np.concatenate([labels[(owner == -1).sum() :], labels[: (owner == -1).sum()]])
    else:
        labels = generator.integers(5, size=owner.size)
    return generator.normal(size=(owner.size, 3, 4)) + 3 * labels[:, None, None], labels


@pytest.mark.parametrize("stratified", [True, False])
def test_raw_features_of_equal_populations_average_one_half_and_are_covered(stratified):
    owner, found, covered = layout(targets=4, each=20, held_out=240), [], 0
    for seed in range(60):
        x, labels = blobs(rng(seed), owner, stratified)
        value, (low, high) = pooled_auc(raw_features(x, labels, owner, 4, rng(seed)), owner)
        found.append(value)
        covered += low <= 0.5 <= high
    assert abs(np.mean(found) - 0.5) < 3.5 * np.std(found) / np.sqrt(60)
    assert covered >= 0.9 * 60


def test_raw_features_find_members_that_look_different():
    owner = layout(targets=4, each=50, held_out=300)
    x, labels = blobs(rng(), owner, stratified=False)
    x[owner >= 0] += 0.5
    scores = raw_features(x, labels, owner, 4, rng())
    assert scores.shape == (4, owner.size)
    assert np.all(scores == scores[0])
    assert pooled_auc(scores, owner)[1][0] > 0.6


def test_records_that_are_not_evaluated_teach_the_baseline_nothing():
    owner = layout(targets=4, each=20, held_out=100)
    owner[::7] = -2
    x, labels = blobs(rng(), owner, stratified=False)
    other = x.copy()
    other[owner == -2] = 1e6
    first = raw_features(x, labels, owner, 4, rng(1))
    assert np.all(first[:, owner == -2] == 0)
    assert np.array_equal(first, raw_features(other, labels, owner, 4, rng(1)))


def test_features_without_information_leave_every_record_level():
    owner = layout(targets=1, each=20, held_out=60)
    scores = raw_features(np.ones((80, 2)), np.zeros(80), owner, 1, rng())
    assert auc(scores[0], owner == 0) == 0.5
    few = raw_features(np.ones((3, 2)), np.zeros(3), np.array([0, -1, -1]), 1, rng())
    assert np.all(few == 0)


def test_the_untrained_model_scores_minus_its_loss_for_every_target():
    assert untrained([1.0, 2.0], 3).tolist() == [[-1.0, -2.0]] * 3
