"""Spectral clustering into two against the usual implementation, and its exact cut by hand."""

import numpy as np
import pytest
from scipy.linalg import eigh
from scipy.spatial.distance import cdist
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score

from fedmia.attacks.spectral import halves, two_clusters


def test_the_cut_is_that_of_the_generalised_eigenproblem():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 4))
    points[:60] += 0.7
    W = np.exp(-0.25 * cdist(points, points) ** 2)
    D = np.diag(W.sum(axis=1))

    found = two_clusters(points, 0.25)

    v = eigh(D - W, D)[1][:, 1]
    assert adjusted_rand_score(halves(v), found) == 1


def test_clusters_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 4))
    points[:60] += 2

    found = two_clusters(points, 0.25)

    usual = SpectralClustering(2, gamma=0.25, random_state=0).fit_predict(points)
    assert adjusted_rand_score(usual, found) > 0.97  # it leaves the weight of a point to itself out


def test_rings_are_told_apart_where_centres_cannot():
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)

    found = two_clusters(np.concatenate([ring, 4 * ring]), 4.0)

    assert len(set(found[:60])) == len(set(found[60:])) == 1
    assert found[0] != found[60]


def test_the_cut_leaves_the_least_scatter():
    rng = np.random.default_rng(1)
    v = np.round(rng.normal(size=25), 1)  # with ties, which stay together

    def scatter(above):
        return sum(v[side].var() * side.sum() for side in (above, ~above))

    possible = [v >= edge for edge in np.unique(v)[1:]]
    assert scatter(halves(v)) == pytest.approx(min(map(scatter, possible)))
    assert halves(np.array([3.0, 0.0, 2.5, -1.0])).tolist() == [True, False, True, False]


def test_what_is_all_alike_has_one_cluster():
    assert not halves(np.ones(4)).any()
    assert not two_clusters(np.zeros((1, 3)), 1.0).any()
