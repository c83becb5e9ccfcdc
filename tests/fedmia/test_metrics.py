import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from fedmia.errors import ConfigError
from fedmia.metrics import (
    Membership,
    auc,
    balanced_accuracy,
    label_matched_auc,
    roc,
    roc_points,
    tpr_at_fpr,
)

FAST = Membership(bootstrap=100)


def rng(seed=0):
    return np.random.default_rng(seed)


def federation(generator, targets=10, each=20, held_out=300, signal=0.0, row=0.0, row_signal=0.0):
    owner = np.concatenate([np.repeat(np.arange(targets), each), np.full(held_out, -1)])
    scores = generator.normal(size=(targets, owner.size))
    scores += row * generator.normal(size=(targets, 1))
    strength = signal + row_signal * generator.normal(size=(targets, 1))
    scores += strength * (owner == np.arange(targets)[:, None])
    return scores, owner


def evaluate(scores, owner, labels=None, membership=FAST, seed=0):
    labels = np.zeros(owner.size, dtype=int) if labels is None else labels
    return membership.evaluate(scores, owner, labels, rng(seed))


def naive_auc(scores, members):
    inside, outside = scores[members], scores[~members]
    wins = [(a > b) + 0.5 * (a == b) for a in inside for b in outside]
    return sum(wins) / len(wins)


# flat arrays


def test_auc_counts_a_tie_as_half_a_win():
    assert auc([1, 2, 2, 3], [False, True, False, True]) == 3.5 / 4


@pytest.mark.parametrize("seed", range(5))
def test_auc_equals_the_double_loop_and_scikit_learn(seed):
    scores = rng(seed).integers(8, size=60).astype(float)
    members = rng(seed + 100).random(60) < 0.3
    assert auc(scores, members) == pytest.approx(naive_auc(scores, members), abs=1e-12)
    assert auc(scores, members) == pytest.approx(roc_auc_score(members, scores), abs=1e-12)


def test_auc_reaches_its_extremes_exactly():
    members = np.arange(30) < 10
    assert auc(members, members) == 1.0
    assert auc(~members, members) == 0.0
    assert auc(np.full(30, 0.1), members) == 0.5


def test_roc_takes_tied_scores_in_one_step():
    fpr, tpr, thresholds = roc([3, 2, 2, 2, 1], [True, True, False, True, False])
    assert fpr.tolist() == [0, 0, 0.5, 1]
    np.testing.assert_allclose(tpr, [0, 1 / 3, 1, 1])
    assert thresholds.tolist() == [np.inf, 3, 2, 1]


def test_the_area_under_the_roc_is_the_auc():
    scores, members = rng(1).integers(9, size=80), rng(2).random(80) < 0.4
    fpr, tpr, _ = roc(scores, members)
    assert np.trapezoid(tpr, fpr) == pytest.approx(auc(scores, members), abs=1e-12)


def test_tpr_counts_members_strictly_above_the_next_nonmember():
    scores = [*range(10), 9.5, 8.5, 8.0, 1.0]
    members = [False] * 10 + [True] * 4
    assert tpr_at_fpr(scores, members, 0.1) == 0.5  # one false positive: 9; 8.0 ties with 8
    assert tpr_at_fpr(scores, members, 0.2) == 0.75
    assert tpr_at_fpr(scores, members, 1.0) == 1.0


def test_tpr_is_none_where_one_nonmember_is_too_coarse():
    scores, members = np.arange(20.0), np.arange(20) >= 10
    assert tpr_at_fpr(scores, members, 0.099) is None
    assert tpr_at_fpr(scores, members, 0.1) == 1.0


def test_tpr_is_the_best_over_all_thresholds_for_every_rate():
    scores, members = rng(3).integers(40, size=150), rng(4).random(150) < 1 / 3
    negatives = (~members).sum()
    for allowed in range(1, negatives + 1):
        options = [
            (scores[members] >= t).mean()
            for t in [*np.unique(scores), np.inf]
            if (scores[~members] >= t).sum() <= allowed
        ]
        assert tpr_at_fpr(scores, members, allowed / negatives) == max(options)


def test_a_rate_that_is_whole_only_in_decimals_is_not_rounded_down():
    assert int(0.29 * 100) == 28
    scores = np.append(np.arange(100.0), 70.5)
    assert tpr_at_fpr(scores, np.arange(101) == 100, 0.29) == 1.0


def test_equal_scores_give_no_true_positives_at_a_low_rate():
    assert tpr_at_fpr(np.ones(40), np.arange(40) < 20, 0.1) == 0.0


def test_balanced_accuracy_of_noise_averages_one_half():
    members = np.arange(60) < 20
    found = [balanced_accuracy(rng(s).normal(size=60), members, rng(s + 999)) for s in range(400)]
    assert abs(np.mean(found) - 0.5) < 4 * np.std(found) / 20
    fitted = [
        (t - f).max() / 2 + 0.5
        for s in range(50)
        for f, t, _ in [roc(rng(s).normal(size=60), members)]
    ]
    assert np.mean(fitted) > 0.57  # what judging on the fitted scores would have said


def test_balanced_accuracy_knows_the_extremes():
    members = np.arange(60) < 20
    assert balanced_accuracy(members, members, rng()) == 1.0
    assert balanced_accuracy(np.ones(60), members, rng()) == 0.5
    assert balanced_accuracy(np.arange(10.0), np.arange(10) == 0, rng()) is None


def test_scores_of_one_record_share_a_half():
    members = np.arange(30) < 15
    records = np.tile(np.arange(30), 8)

    def average(**kwargs):
        draws = [np.tile(rng(s).normal(size=30), 8) for s in range(200)]
        many = np.tile(members, 8)
        return np.mean([balanced_accuracy(d, many, rng(s), **kwargs) for s, d in enumerate(draws)])

    assert average() > 0.57  # a record in both halves is judged by its own threshold
    assert abs(average(records=records) - 0.5) < 0.03


def test_label_matched_auc_equals_the_loop_over_members():
    generator = rng(5)
    scores, labels = generator.integers(6, size=90).astype(float), generator.integers(5, size=90)
    members = (generator.random(90) < 0.4) | (labels == 4)  # label 4: nobody to compare with
    shares = [
        np.mean([(s > o) + 0.5 * (s == o) for o in scores[~members & (labels == c)]])
        for s, c in zip(scores[members], labels[members], strict=True)
        if c != 4
    ]
    assert label_matched_auc(scores, members, labels) == pytest.approx(np.mean(shares), abs=1e-12)


def test_what_the_label_alone_reveals_is_worth_one_half_once_matched():
    labels = np.repeat([0, 1], 50)
    members = np.concatenate([np.arange(50) < 40, np.arange(50) < 10])
    scores = -labels.astype(float)
    assert auc(scores, members) == pytest.approx(0.8)
    assert label_matched_auc(scores, members, labels) == 0.5
    assert label_matched_auc([1, 2], [True, False], [0, 1]) is None


@pytest.mark.parametrize(
    ("scores", "members", "message"),
    [
        ([0, np.nan], [True, False], r"scores\[1\] is nan"),
        ([0, 1, 2], [True, False], "shapes"),
        ([0, 1], [True, True], "2 of 2 are members"),
        ([0, 1], [False, False], "0 of 2 are members"),
    ],
)
def test_unusable_scores_are_named(scores, members, message):
    with pytest.raises(ValueError, match=message):
        auc(scores, members)


# a whole federation


def test_a_planted_leak_is_found_and_the_report_is_plain_json():
    scores, owner = federation(rng(), signal=1.5, held_out=300)
    result = evaluate(scores, owner)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    truth = norm.cdf(1.5 / np.sqrt(2))
    assert result["auc_ci"][0] < truth < result["auc_ci"][1]
    assert result["auc_ci"][0] > 0.5
    assert result["tpr_at_fpr"]["0.001"] is None
    assert result["tpr_ci"]["0.001"] is None
    low, high = result["tpr_ci"]["0.1"]
    assert low < result["tpr_at_fpr"]["0.1"] < high
    assert result["advantage"] == pytest.approx(2 * result["balanced_accuracy"] - 1)
    assert len(result["per_target"]) == 10
    means = [target["auc"] for target in result["per_target"]]
    assert result["auc_target_mean"] == pytest.approx(np.mean(means))


def test_the_pooled_numbers_are_those_of_the_pooled_pairs():
    scores, owner = federation(rng(1), targets=3, each=5, held_out=40, signal=1.0)
    scores = scores.round(1)
    inside = np.concatenate([scores[k, owner == k] for k in range(3)])
    outside = scores[:, owner == -1].ravel()
    flat, members = np.append(inside, outside), np.arange(15 + 120) < 15
    result = evaluate(scores, owner)
    assert result["auc"] == pytest.approx(naive_auc(flat, members), abs=1e-12)
    assert result["tpr_at_fpr"]["0.1"] == tpr_at_fpr(flat, members, 0.1)
    others = np.concatenate([scores[k, (owner >= 0) & (owner != k)] for k in range(3)])
    flat, members = np.append(inside, others), np.arange(15 + 30) < 15
    assert result["other_members"]["auc"] == pytest.approx(naive_auc(flat, members), abs=1e-12)
    row = np.append(scores[1, owner == 1], scores[1, owner == -1])
    assert result["per_target"][1]["auc"] == pytest.approx(naive_auc(row, np.arange(45) < 5))


def test_members_of_others_and_left_out_records_never_reach_the_headline():
    scores, owner = federation(rng(2), targets=4, each=10, held_out=100, signal=1.0)
    owner[-20:] = -2
    changed = scores.copy()
    changed[:, owner == -2] += 100
    changed[(owner >= 0) & (owner != np.arange(4)[:, None])] += 100
    before, after = evaluate(scores, owner), evaluate(changed, owner)
    assert after.pop("other_members")["auc"] == 0.0
    assert before.pop("other_members")["auc"] > 0.6
    assert before == after


def test_the_number_of_distinct_nonmembers_sets_the_resolution():
    scores, owner = federation(rng(3), targets=10, held_out=99, signal=1.0)
    result = evaluate(scores, owner)  # 990 pairs, 99 records
    assert result["tpr_at_fpr"]["0.1"] is not None
    assert result["tpr_at_fpr"]["0.01"] is None


def test_labels_are_matched_within_a_target():
    # each target's score is its own label prior: matched across targets it would still win
    owner = np.append(np.repeat([0, 1], 10), np.full(40, -1))
    labels = np.concatenate([[0] * 9 + [1], [1] * 9 + [0], np.arange(40) % 2])
    scores = np.stack([labels == 0, labels == 1]).astype(float)
    result = evaluate(scores, owner, labels)
    assert result["auc"] == pytest.approx(0.7)
    assert result["auc_label_matched"] == 0.5


def test_equal_scores_are_worth_exactly_nothing():
    _, owner = federation(rng(), held_out=1000)
    result = evaluate(np.zeros((10, owner.size)), owner)
    assert (result["auc"], result["auc_ci"]) == (0.5, [0.5, 0.5])
    assert result["balanced_accuracy"] == 0.5
    assert set(result["tpr_at_fpr"].values()) == {0.0}
    assert result["tpr_ci"]["0.001"][1] == pytest.approx(1 - 0.025 ** (1 / 200))


def test_perfect_separation_has_an_interval():
    scores, owner = federation(rng(), targets=2, each=10, held_out=50, signal=100.0)
    result = evaluate(scores, owner)
    assert result["auc"] == 1.0
    assert result["auc_ci"] == [pytest.approx(0.025 ** (1 / 20)), 1.0]
    assert result["per_target"][0]["auc_ci"] == [pytest.approx(0.025 ** (1 / 10)), 1.0]
    reverse = evaluate(-scores, owner)
    assert reverse["auc_ci"] == [0.0, pytest.approx(1 - 0.025 ** (1 / 20))]


@pytest.mark.parametrize(("each", "held_out"), [(1, 1), (1, 5), (2, 1), (3, 2)])
@pytest.mark.parametrize("targets", [1, 2])
def test_very_few_records_still_give_finite_wide_intervals(targets, each, held_out):
    scores, owner = federation(rng(4), targets, each, held_out)
    result = evaluate(scores, owner)
    low, high = result["auc_ci"]
    assert 0 <= low <= result["auc"] <= high <= 1
    assert high - low > 0.3
    json.dumps(result, allow_nan=False)


def test_one_target_alone_has_no_other_members():
    scores, owner = federation(rng(5), targets=1)
    assert evaluate(scores, owner)["other_members"] is None


def test_a_target_without_members_is_left_out():
    scores, owner = federation(rng(6), targets=3, signal=1.0)
    owner[owner == 1] = -2
    result = evaluate(scores, owner)
    assert result["per_target"][1] == {
        "auc": None,
        "auc_ci": None,
        "tpr_at_fpr": {"0.1": None, "0.01": None, "0.001": None},
    }
    kept = np.delete(scores, 1, axis=0), np.where(owner == 2, 1, owner)
    assert result["auc"] == evaluate(*kept)["auc"]


def test_the_interval_of_one_target_is_delongs():
    scores, owner = federation(rng(7), targets=1, each=40, held_out=60, signal=0.8)
    wins = scores[0, owner == 0][:, None] > scores[0, owner == -1]
    value = wins.mean()
    variance = wins.mean(1).var(ddof=1) / 40 + wins.mean(0).var(ddof=1) / 60
    half = norm.ppf(0.975) * np.sqrt(variance) / (value * (1 - value))
    expected = expit(logit(value) + np.array([-half, half]))
    np.testing.assert_allclose(evaluate(scores, owner)["auc_ci"], expected, atol=0.005)


def test_scoring_the_same_nonmembers_again_adds_no_certainty():
    generator = rng(8)
    one, owner = federation(generator, targets=1, each=400, held_out=25, signal=0.5)
    split = np.where(owner == 0, np.arange(owner.size) % 10, -1)
    once, tenfold = evaluate(one, owner), evaluate(np.repeat(one, 10, axis=0), split)
    assert once["auc"] == pytest.approx(tenfold["auc"])
    assert np.ptp(tenfold["auc_ci"]) > 0.95 * np.ptp(once["auc_ci"])
    assert np.ptp(tenfold["tpr_ci"]["0.1"]) > 0.8 * np.ptp(once["tpr_ci"]["0.1"])


WORLDS = pytest.mark.parametrize(
    "world",
    [{}, {"signal": 1.19}, {"row": 1.0}, {"signal": 1.19, "row_signal": 0.5}],
    ids=["null", "leak", "null, shifted targets", "unequal targets"],
)


def replicate(runs, membership, value, interval, world):
    """Return how often intervals cover the mean of the values, and mean width over ideal width."""
    found = [evaluate(*federation(rng(s), **world), membership=membership) for s in range(runs)]
    values, ends = np.array([value(f) for f in found]), np.array([interval(f) for f in found])
    inside = (ends[:, 0] <= values.mean()) & (values.mean() <= ends[:, 1])
    return inside.mean(), np.ptp(ends, axis=1).mean() / (2 * norm.ppf(0.975) * values.std())


@WORLDS
def test_auc_intervals_cover_the_truth_without_being_wide(world):
    # the ideal width is itself estimated: 300 runs know it to 4%
    covered, width = replicate(
        300, Membership(fprs=[]), lambda f: f["auc"], lambda f: f["auc_ci"], world
    )
    assert covered >= 0.92
    assert 0.9 < width < 1.4


@WORLDS
def test_tpr_intervals_cover_the_truth(world):
    covered, width = replicate(
        100,
        Membership(fprs=[0.1], bootstrap=100),
        lambda f: f["tpr_at_fpr"]["0.1"],
        lambda f: f["tpr_ci"]["0.1"],
        world,
    )
    assert covered >= 0.92
    assert width < 1.8


def test_the_bootstrap_on_sorted_scores_equals_resampling_the_records():
    scores, owner = federation(rng(9), targets=3, each=15, held_out=80, signal=1.0)
    scores = scores.round(1)
    found = evaluate(scores, owner, membership=Membership(bootstrap=4000))["tpr_ci"]["0.1"]
    generator, inside, outside = rng(10), np.arange(45), np.arange(45, 125)
    slow = []
    for _ in range(4000):
        member = generator.choice(inside, 45)
        other = scores[:, generator.choice(outside, 80)].ravel()
        drawn = np.append(scores[owner[member], member], other)
        slow.append(tpr_at_fpr(drawn, np.arange(drawn.size) < 45, 0.1))
    np.testing.assert_allclose(found, np.quantile(slow, [0.025, 0.975]), atol=0.03)


def test_the_same_generator_gives_the_same_report():
    scores, owner = federation(rng(11), signal=0.5)
    assert evaluate(scores, owner, seed=3) == evaluate(scores, owner, seed=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, o: (np.where(np.arange(o.size) == 7, np.nan, s), o), r"scores\[0, 7\] is nan"),
        (lambda s, o: (s[0], o), "shapes"),
        (lambda s, o: (s, o[:-1]), "shapes"),
        (lambda s, o: (s, np.where(o == 0, 10, o)), "owner spans"),
        (lambda s, o: (s, np.where(o == -1, -2, o)), "held-out"),
        (lambda s, o: (s, np.where(o >= 0, -1, o)), "0 members"),
    ],
)
def test_unusable_layouts_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        evaluate(*change(*federation(rng())))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fprs": [0.1, 0.0]}, r"fprs=\[0.1, 0.0\]: expected"),
        ({"fprs": [1.1]}, "fprs="),
        ({"confidence": 1.0}, r"confidence=1.0: expected in \(0, 1\)"),
        ({"bootstrap": 99}, "bootstrap=99: expected at least 100"),
    ],
)
def test_settings_out_of_range_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Membership(**fields)


def test_the_yaml_holds_every_field_at_its_default():
    path = Path(__file__).parents[2] / "conf" / "metrics" / "membership.yaml"
    option = yaml.safe_load(path.read_text())
    assert option.pop("_target_") == "fedmia.metrics.Membership"
    assert option == vars(Membership())


def test_the_plotted_curve_is_short_exact_and_complete_at_both_ends():
    scores, owner = federation(rng(12), held_out=2000, signal=1.0)
    fpr, tpr = roc_points(scores, owner)
    assert len(fpr) == len(tpr) <= 400
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert fpr[fpr > 0].min() == 1 / 20_000
    inside = np.concatenate([scores[k, owner == k] for k in range(10)])
    outside = scores[:, owner == -1].ravel()
    whole = roc(np.append(inside, outside), np.arange(20_200) < 200)
    exact = set(zip(whole[0], whole[1], strict=True))
    assert exact.issuperset(zip(fpr, tpr, strict=True))
    assert np.all(np.diff(fpr) >= 0)
    assert np.trapezoid(tpr, fpr) == pytest.approx(
        auc(np.append(inside, outside), np.arange(20_200) < 200), abs=0.005
    )
