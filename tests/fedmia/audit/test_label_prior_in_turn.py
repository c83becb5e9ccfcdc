"""Labels of records that are in by a coin say nothing, and an oracle must not find the luck."""

import numpy as np

from fedmia.audit import label_prior, label_prior_in_turn
from fedmia.metrics import auc


def rng(seed=0):
    return np.random.default_rng(seed)


def coins(seed, n=100, classes=10):
    generator = rng(seed)
    labels = generator.integers(classes, size=n)
    return labels, np.where(generator.random(n) < 0.5, generator.integers(5, size=n), -1)


def test_coins_are_not_found_where_the_oracle_finds_them():
    oracle, in_turn = [], []
    for seed in range(200):
        labels, owner = coins(seed)
        oracle.append(auc(label_prior(labels, np.minimum(owner, 0), 1)[0], owner >= 0))
        in_turn.append(auc(label_prior_in_turn(labels, owner, 1, rng(seed))[0], owner >= 0))
    assert np.mean(oracle) > 0.6
    assert abs(np.mean(in_turn) - 0.5) < 3 * np.std(in_turn) / np.sqrt(200) + 1e-3
    assert np.std(in_turn) < 0.07


def test_labels_that_tell_members_are_found():
    labels, _ = coins(0, n=400)
    owner = np.where(labels + rng(1).normal(size=400) > 5, 0, -1)
    assert auc(label_prior_in_turn(labels, owner, 1, rng())[0], owner >= 0) > 0.75


def test_every_row_is_the_same_and_who_is_not_evaluated_has_no_say():
    labels, owner = coins(3)
    owner[:10] = -2
    scores = label_prior_in_turn(labels, owner, 5, rng())
    assert scores.shape == (5, 100)
    assert (scores == scores[0]).all()
    assert (scores[:, :10] == 0).all()
    other = labels.copy()
    other[:10] = 0
    np.testing.assert_array_equal(
        scores[:, 10:], label_prior_in_turn(other, owner, 5, rng())[:, 10:]
    )
