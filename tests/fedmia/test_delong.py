import numpy as np
import pytest
from federations import naive_auc, rng
from scipy.stats import norm

from fedmia.delong import delong, delong_paired


def naive(scores, members):
    """Every pair by itself: the AUC and each record's share of wins."""
    inside, outside = scores[members], scores[~members]
    wins = np.array([[(a > b) + 0.5 * (a == b) for b in outside] for a in inside])
    return wins.mean(), wins.mean(axis=1), wins.mean(axis=0)


@pytest.mark.parametrize("seed", range(4))
def test_the_variance_is_that_of_all_pairs(seed):
    scores = rng(seed).integers(9, size=70).astype(float)
    members = rng(seed + 50).random(70) < 0.4
    value, by_member, by_other = naive(scores, members)
    expected = by_member.var(ddof=1) / members.sum() + by_other.var(ddof=1) / (~members).sum()
    assert delong(scores, members) == pytest.approx((value, expected), abs=1e-12)
    assert value == pytest.approx(naive_auc(scores, members))


def test_the_difference_is_that_of_all_pairs():
    members = np.arange(60) < 25
    first, second = rng(1).integers(7, size=(2, 60)).astype(float)
    a, b = naive(first, members), naive(second, members)
    variance = (a[1] - b[1]).var(ddof=1) / 25 + (a[2] - b[2]).var(ddof=1) / 35
    expected = (a[0] - b[0], variance)
    assert delong_paired(first, second, members) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("signal", [0.0, 1.0])
def test_the_variance_is_what_repeating_the_draw_shows(signal):
    members = np.arange(130) < 50
    found = np.array(
        [delong(signal * members + rng(s).normal(size=130), members) for s in range(800)]
    )
    assert found[:, 0].mean() == pytest.approx(norm.cdf(signal / np.sqrt(2)), abs=0.01)
    assert found[:, 1].mean() == pytest.approx(found[:, 0].var(), rel=0.15)


def test_what_two_scores_share_cancels_in_their_difference():
    members, found = np.arange(130) < 50, []
    for s in range(600):
        common = rng(s).normal(size=130)
        first = members + common + 0.3 * rng(s + 1000).normal(size=130)
        second = 0.5 * members + common + 0.3 * rng(s + 2000).normal(size=130)
        found.append([*delong_paired(first, second, members), delong(first, members)[1]])
    difference, variance, unpaired = np.transpose(found)
    assert variance.mean() == pytest.approx(difference.var(), rel=0.15)
    assert variance.mean() < 0.5 * unpaired.mean()


def test_a_score_against_itself_has_no_difference_and_no_variance():
    members, scores = np.arange(40) < 15, rng().normal(size=40)
    assert delong_paired(scores, scores, members) == (0.0, 0.0)
    assert delong_paired(scores, 2 * scores + 1, members) == (0.0, 0.0)


def test_the_order_of_records_does_not_matter():
    members, scores, order = np.arange(40) < 15, rng().normal(size=40), rng(2).permutation(40)
    expected = delong(scores, members)
    assert delong(scores[order], members[order]) == pytest.approx(expected, abs=1e-15)


def test_a_single_record_has_no_spread_to_see():
    with pytest.raises(ValueError, match="1 of 3 are members: expected two of both kinds"):
        delong([1.0, 2, 3], [True, False, False])
    with pytest.raises(ValueError, match="expected a finite score"):
        delong([1.0, np.nan, 3], [True, False, False])
