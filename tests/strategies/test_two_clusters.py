"""The gap statistic on numbers of one and of two clusters, and the cut against k-means."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from strategies.two_clusters import _within, upper_cluster


def rng(seed=0):
    return np.random.default_rng(seed)


def test_sums_of_squares_by_hand():
    # 0, 1, 5, 6: mean 3, 9 + 4 + 4 + 9; cut in the middle: 4 · 0.25.
    one, two, cut = _within(np.array([[0.0, 1.0, 5.0, 6.0]]))
    assert (one[0], two[0], cut[0]) == (26.0, 1.0, 2)


@pytest.mark.parametrize("seed", range(5))
def test_the_cut_is_at_least_as_good_as_k_means(seed):
    values = np.sort(rng(seed).random(12))
    _, two, cut = _within(values[None])
    means = KMeans(2, n_init=20, random_state=0).fit(values[:, None])
    assert two[0] <= means.inertia_ + 1e-9
    assert cut[0] in (means.labels_ == means.labels_[0]).nonzero()[0] + 1


def test_two_clusters_are_told_and_the_upper_one_returned():
    values = np.array([1.0, 3.0, 1.1, 0.9, 3.1, 1.05, 0.95])
    np.testing.assert_array_equal(upper_cluster(values, 20, rng()), [0, 1, 0, 0, 1, 0, 0])


def test_uniform_numbers_are_mostly_one_cluster():
    told = [upper_cluster(rng(s).random(10), 20, rng(s + 1)).any() for s in range(100)]
    assert np.mean(told) < 0.5


@pytest.mark.parametrize(
    "values", [[], [1.0], [1.0, 9.0], [2.0] * 6, [1.0, 1.0 + 1e-9, 1.0 - 1e-9, 1.0]]
)
def test_few_numbers_and_equal_ones_are_one_cluster(values):
    assert not upper_cluster(np.array(values), 20, rng()).any()


def test_two_values_alone_are_two_clusters():
    np.testing.assert_array_equal(upper_cluster(np.array([1.0, 1, 2, 1]), 20, rng()), [0, 0, 1, 0])
