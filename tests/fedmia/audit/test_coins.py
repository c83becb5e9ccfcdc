"""The one-run bound on canaries that were put in by a coin each."""

import numpy as np
import pytest

from fedmia.audit import epsilon_one_run_from_coins, one_run_ceiling, one_run_lower_bound
from fedmia.audit.one_run import SHARES

DELTA, CONFIDENCE = 1e-5, 0.95


def rng(seed=0):
    return np.random.default_rng(seed)


def canaries(m=200, rows=4, strength=0.0, seed=0, scale=1.0):
    """Hosts in turn, fair coins, and scores whose rows have offsets of their own."""
    generator = rng(seed)
    host = np.arange(m) % rows
    owner = np.where(generator.random(m) < 0.5, host, -1)
    scores = generator.normal(size=(rows, m))
    scores += strength * (owner == np.arange(rows)[:, None])
    return scale * scores + 100 * np.arange(rows)[:, None], owner, host


def bound(scores, owner, host, seed=0, **given):
    return epsilon_one_run_from_coins(
        {"a": scores}, owner, host, DELTA, CONFIDENCE, rng(seed + 5000), **given
    )


def test_one_row_and_one_share_are_the_papers_bound():
    scores, owner, host = canaries(rows=1, strength=2.0)
    found, ceiling = bound(scores, owner, host, shares=[0.5])
    expected = one_run_lower_bound(scores[0], owner >= 0, 50, 50, DELTA, CONFIDENCE, rng())
    assert found == pytest.approx(expected)
    assert 1 < found < ceiling == pytest.approx(one_run_ceiling(200, 100, DELTA, CONFIDENCE))


def test_each_canary_is_scored_by_the_row_of_its_host_and_within_that_row():
    scores, owner, host = canaries(strength=6.0)
    found, ceiling = bound(scores, owner, host)
    assert found > 0.75 * ceiling
    shifted = bound(scores, owner, (host + 1) % 4)[0]
    assert shifted < 1 < found


def test_monotone_changes_of_a_row_change_nothing():
    scores, owner, host = canaries(strength=1.5)
    curved = np.stack([np.exp(scores[0] / 50), scores[1], 3 * scores[2] - 7, scores[3] ** 3])
    assert bound(curved, owner, host) == bound(scores, owner, host)


def test_attacks_and_shares_are_paid_for():
    scores, owner, host = canaries(strength=6.0)
    alone = bound(scores, owner, host, shares=[1.0])[1]
    each = 1 - 0.05 / (2 * len(SHARES))
    both = epsilon_one_run_from_coins(
        {"a": scores, "b": scores}, owner, host, DELTA, CONFIDENCE, rng()
    )
    most = max(one_run_ceiling(200, r, DELTA, each) for r in (20, 100, 200))
    assert both[1] == pytest.approx(most)
    assert both[1] < alone


def test_canaries_that_are_not_asked_about_count_for_nothing():
    scores, owner, host = canaries(rows=1, strength=2.0)
    some = np.where(np.arange(200) < 80, -2, 0)
    cut = epsilon_one_run_from_coins(
        {"a": scores[:, 80:]}, owner[80:], host[80:], DELTA, CONFIDENCE, rng(5000)
    )
    assert bound(scores, owner, some) == cut


def test_blind_scores_rarely_prove_anything():
    found = [bound(*canaries(m=60, seed=s), seed=s)[0] for s in range(200)]
    assert np.mean(np.array(found) > 0) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_randomised_response_is_never_overstated_often():
    """Scores that are the coins, flipped so that ε is 1."""
    truth, found = 1.0, []
    for seed in range(200):
        _, owner, host = canaries(m=300, rows=3, seed=seed)
        kept = rng(seed + 1000).random(300) < np.exp(truth) / (1 + np.exp(truth))
        said = np.where(kept, owner >= 0, owner < 0).astype(float)
        found.append(bound(np.tile(said, (3, 1)), owner, host, seed)[0])
    assert np.mean(np.array(found) > truth) <= 0.05
    assert np.mean(found) > 0.3


def test_nothing_to_ask_about_proves_nothing():
    scores, owner, host = canaries()
    assert epsilon_one_run_from_coins({}, owner, host, DELTA, CONFIDENCE, rng()) == (0.0, 0.0)
    assert bound(scores, owner, np.full(200, -2)) == (0.0, 0.0)


def test_what_is_no_score_or_share_is_refused():
    scores, owner, host = canaries()
    with pytest.raises(ValueError, match="expected values in"):
        bound(scores, owner, host, shares=[1.5])
    scores[2, 7] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        bound(scores, owner, host)
