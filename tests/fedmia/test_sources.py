import numpy as np
import pytest
from scipy.stats import binomtest

from fedmia.sources import blind_source_accuracy, source_accuracy, wilson_interval


def test_the_source_is_the_row_of_the_highest_score_and_ties_are_shared():
    owner = np.array([0, 0, 1, 2, -1, -2])
    scores = np.array([
        [5.0, 1.0, 2.0, 0.0, 9.0, 9.0],
        [1.0, 3.0, 2.0, 0.0, 0.0, 0.0],
        [2.0, 2.0, 1.0, 0.0, 0.0, 0.0],
    ])  # fmt: skip
    # right, wrong, one of two, one of three
    assert source_accuracy(scores, owner) == pytest.approx((1 + 0 + 1 / 2 + 1 / 3) / 4)


def test_the_extremes_are_certainty_guessing_and_always_wrong():
    owner = np.repeat(np.arange(4), 3)
    right = (owner == np.arange(4)[:, None]).astype(float)
    assert source_accuracy(right, owner) == 1.0
    assert source_accuracy(-right, owner) == 0.0
    assert source_accuracy(np.zeros_like(right), owner) == 0.25


def test_what_is_nobodys_changes_nothing_and_order_neither():
    rng = np.random.default_rng(0)
    owner, scores = rng.integers(-2, 5, size=200), rng.normal(size=(5, 200))
    changed = scores + 100 * (owner < 0) * rng.normal(size=scores.shape)
    order = rng.permutation(200)
    value = source_accuracy(scores, owner)
    assert source_accuracy(changed, owner) == value
    assert source_accuracy(scores[:, order], owner[order]) == pytest.approx(value)


def test_without_members_there_is_no_source():
    with pytest.raises(ValueError, match="0 members: expected at least one"):
        source_accuracy(np.zeros((2, 3)), np.array([-1, -1, -2]))


def test_equal_histograms_reveal_nothing_and_disjoint_ones_everything():
    owner = np.append(np.repeat([0, 1], 4), [-1] * 4)
    assert blind_source_accuracy(np.tile([0, 1], 6), owner) == 0.5
    assert blind_source_accuracy(np.append(owner[:8], [0, 1, 0, 1]), owner) == 1.0
    # label 7: 3 of client 0, 1 of client 1; label 8: one and three
    labels = np.array([7, 7, 7, 8, 7, 8, 8, 8, 7, 7, 7, 7])
    assert blind_source_accuracy(labels, owner) == pytest.approx(6 / 8)


@pytest.mark.parametrize("owner", [[0, 0, -1], [-1, -1, -2]])
def test_one_client_or_none_has_no_source_to_guess(owner):
    assert blind_source_accuracy([0, 1, 0], owner) is None


@pytest.mark.parametrize(("hits", "trials"), [(0, 20), (7, 20), (20, 20), (113, 200)])
def test_the_interval_is_the_one_of_scipy(hits, trials):
    exact = binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    found = wilson_interval(hits / trials, trials, 0.95)
    assert found == pytest.approx([exact.low, exact.high], abs=1e-12)
