"""Whose update is whose cannot be told from what the server gets, only the sum can."""

import numpy as np
import pytest
from executions import Crew
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fedmia.secagg.codec import Codec
from fedmia.secagg.masks import add_mask
from fedmia.secagg.protocol import Protocol

NODES, EACH = [5, 7, 9], 250
WIDTH = 5.0
"""Of the interval, in standard errors: a chance in a million that guessing lies outside."""

CODEC = Codec(cohort=3)
X = {5: [0.4, -0.2, 0.1, 0.3], 7: [-0.4, 0.2, -0.1, -0.3], 9: [0.1, 0.1, 0.1, 0.1]}


def data(world):
    """Return every client's words: in world 1, clients 5 and 7 have each other's data."""
    whose = {5: 7, 7: 5, 9: 9} if world else {n: n for n in NODES}
    return {
        n: CODEC.encode({"w": np.array(X[whose[n]], np.float32)}, {}, 20).astype(np.uint32)
        for n in NODES
    }


def seen(world, masks):
    """Return what the server gets of one execution, its own masks taken off as it can do itself."""
    words = data(world)
    if not masks:
        return np.concatenate([words[n] for n in NODES])
    crew = Crew(Protocol(cohort=3, dropout=0.0), NODES)
    crew.begin()
    got = {n: crew.masked(n, words[n]) for n in NODES}
    seeds = {n: crew.known[n].own_seed for n in NODES}
    stripped = {n: w.copy() for n, w in got.items()}
    for n in NODES:
        add_mask(stripped[n], seeds[n], -1)
    total = sum(stripped.values())
    assert np.array_equal(total, sum(data(0).values()))
    return np.concatenate([*got.values(), *stripped.values()])


def features(masks):
    views = np.stack([seen(k % 2, masks) for k in range(2 * EACH)])
    turns = 2 * np.pi * views / 2.0**32
    return np.hstack([views / 2.0**32, np.cos(turns), np.sin(turns)])


def separation(classifier, x):
    """Return the AUC on held-out executions and the half width of the interval of a guess."""
    world = np.arange(len(x)) % 2
    half = len(x) // 2
    classifier.fit(x[:half], world[:half])
    auc = roc_auc_score(world[half:], classifier.predict_proba(x[half:])[:, 1])
    n = half // 2
    return auc, WIDTH * np.sqrt((2 * n + 1) / (12 * n * n))  # Mann and Whitney 1947


@pytest.fixture(scope="module")
def views():
    return {masks: features(masks) for masks in (True, False)}


@pytest.mark.parametrize(
    "classifier",
    [LogisticRegression(max_iter=2000), RandomForestClassifier(100, random_state=0)],
    ids=["logistic", "forest"],
)
def test_two_worlds_with_one_sum_look_the_same_and_not_without_masks(classifier, views):
    assert np.array_equal(sum(data(0).values()), sum(data(1).values()))
    assert any(not np.array_equal(data(0)[n], data(1)[n]) for n in NODES)

    auc, margin = separation(classifier, views[True])
    bare, _ = separation(classifier, views[False])

    assert margin < 0.2
    assert abs(auc - 0.5) < margin
    assert bare == 1.0
