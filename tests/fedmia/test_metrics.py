import numpy as np
import pytest
from federations import federation, naive_auc, rng
from sklearn.metrics import roc_auc_score

from fedmia.metrics import (
    achieved_rate,
    auc,
    balanced_accuracy,
    label_matched_auc,
    numbered,
    placements,
    ppv,
    rate_above,
    resolved,
    roc,
    roc_points,
    threshold_at,
    tpr_at_fpr,
    twice_below,
)


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


def test_the_plotted_curve_is_short_exact_and_complete_at_both_ends():
    scores, owner = federation(rng(12), held_out=2000, signal=1.0)
    inside = np.concatenate([scores[k, owner == k] for k in range(10)])
    outside = scores[:, owner == -1].ravel()
    flat, members = np.append(inside, outside), np.arange(20_200) < 200
    fpr, tpr = roc_points(flat, members)
    assert len(fpr) == len(tpr) <= 400
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert fpr[fpr > 0].min() == 1 / 20_000
    whole = roc(flat, members)
    exact = set(zip(whole[0], whole[1], strict=True))
    assert exact.issuperset(zip(fpr, tpr, strict=True))
    assert np.all(np.diff(fpr) >= 0)
    assert np.trapezoid(tpr, fpr) == pytest.approx(auc(flat, members), abs=0.005)


def test_a_rate_is_resolved_from_one_false_positive_on():
    assert resolved(0.01, 100)
    assert resolved(0.1, 10)
    assert not resolved(0.01, 99)


def test_twice_below_counts_a_tie_once_and_a_rival_below_twice():
    assert twice_below(np.array([0, 1, 2, 3]), np.array([2, 1, 1])).tolist() == [0, 2, 5, 6]


def test_the_rate_above_allows_the_floor_of_the_false_positives():
    members, nonmembers = np.array([1.0, 2.5, 3.5]), np.array([3.0, 1.0, 2.0, 0.0])
    found = [rate_above(members, nonmembers, f) for f in (0.0, 0.24, 0.25, 0.5, 1.0)]
    assert found == [1 / 3, 1 / 3, 2 / 3, 2 / 3, 1.0]


def test_a_threshold_at_a_rate_leaves_no_more_above_it():
    scores = np.array([3.0, 1.0, 2.0, 2.0])
    assert [threshold_at(scores, f) for f in (0.0, 0.25, 0.5, 0.75, 1.0)] == [3, 2, 2, 1, -np.inf]


def test_placements_average_to_the_auc_on_either_side():
    scores, members = rng(4).integers(6, size=50).astype(float), rng(5).random(50) < 0.4
    found, expected = placements(scores, members), naive_auc(scores, members)
    assert found[members].mean() == pytest.approx(expected, abs=1e-12)
    assert found[~members].mean() == pytest.approx(expected, abs=1e-12)


def test_an_achieved_rate_is_judged_on_the_half_that_did_not_set_the_threshold():
    scores = np.array([0.0, 1, 2, 3, 2.5, 9])
    members = np.arange(6) > 3
    found = set()
    for seed in range(40):
        halves = rng(seed).permutation(4)[:2], rng(seed).permutation(4)[2:]
        # of two non-members, one may score above: the threshold is the other one
        thresholds = [scores[half].min() for half in halves]
        fpr = [(scores[h] > t).mean() for h, t in zip(halves[::-1], thresholds, strict=True)]
        tpr = [(scores[members] > t).mean() for t in thresholds]
        expected = (np.mean(fpr), np.mean(tpr))
        assert achieved_rate(scores, members, 0.5, rng(seed)) == expected
        found.add(expected)
    assert len(found) > 1


def test_an_achieved_rate_is_the_nominal_one_on_average_and_finds_members():
    members, found = np.arange(600) < 200, []
    for seed in range(150):
        scores = 2.0 * members + rng(seed).normal(size=600)
        found.append(achieved_rate(scores, members, 0.1, rng(seed)))
    fpr, tpr = np.mean(found, axis=0)
    assert fpr == pytest.approx(0.1, abs=0.005)
    assert tpr == pytest.approx(0.764, abs=0.015)  # Φ(2 + Φ⁻¹(0.1))


def test_scores_of_one_record_set_a_threshold_or_are_judged_by_it():
    # all scores of a record are equal: where its half sets the threshold, none lies above it
    records = np.append(np.repeat(np.arange(4), 25), [4, 5])
    scores = np.append(np.repeat([0.0, 0, 0, 1], 25), [0.5, 2])
    members = np.arange(102) >= 100
    by_record = [achieved_rate(scores, members, 0.5, rng(s), records)[0] for s in range(30)]
    # the high record's half allows its 25 of 50; the other half of zeros accuses all 25
    assert set(by_record) == {0.25}


def test_a_rate_that_half_of_the_records_cannot_resolve_is_not_achieved():
    scores, members = np.arange(30.0), np.arange(30) >= 20
    assert achieved_rate(scores, members, 0.1, rng()) is not None
    assert achieved_rate(scores, members, 0.09, rng()) is None
    records = np.append(np.arange(20) // 2, np.arange(20, 30))
    assert achieved_rate(scores, members, 0.1, rng(), records) is None


def test_the_precision_is_bayes_rule():
    assert ppv(0.5, 0.01, 0.5) == pytest.approx(50 / 51)
    assert ppv(0.5, 0.01, 0.01) == pytest.approx(0.005 / (0.005 + 0.0099))
    assert ppv(0.2, 0.2, 0.1) == pytest.approx(0.1)  # guessing leaves the prior
    assert (ppv(0.3, 0.0, 0.1), ppv(0.0, 0.3, 0.1), ppv(0.0, 0.0, 0.1)) == (1.0, 0.0, None)


@pytest.mark.parametrize("bad", [(1.1, 0, 0.5), (0, -0.1, 0.5), (0.5, 0.5, 0.0), (0.5, 0.5, 1.0)])
def test_rates_and_priors_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=f"tpr={bad[0]}, fpr={bad[1]}, prior={bad[2]}"):
        ppv(*bad)


def test_numbers_have_no_gaps_and_keep_their_order():
    assert numbered([7, 0, 3, 7, 9]).tolist() == [2, 0, 1, 2, 3]
    assert numbered(np.arange(5)).tolist() == [0, 1, 2, 3, 4]
