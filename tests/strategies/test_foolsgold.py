"""FoolsGold against weights worked out by hand, and sybils against it."""

import numpy as np
import pytest

from fedmia.errors import ConfigError
from strategies.foolsgold import FoolsGold, vote
from tests.strategies.central_rounds import fed_avg, play
from tests.strategies.rounds_of import updates_of


def test_weights_by_hand():
    # v = .96, .96, .8, .5. Client 2 is pardoned: .8·(.8/.96) = 2/3, .6·(.8/.96), and .5 towards
    # client 3. Client 3: .5·(.5/.8).
    cosine = np.array([[1, 0.96, 0.8, 0], [0.96, 1, 0.6, 0], [0.8, 0.6, 1, 0.5], [0, 0, 0.5, 1]])
    alpha = np.array([0.04, 0.04, 1 / 3, 1 - 0.5 * 0.5 / 0.8]) / (1 - 0.3125)
    logit = np.log(alpha[:3] / (1 - alpha[:3])) + 0.5
    np.testing.assert_allclose(vote(cosine, 1.0), [0, 0, logit[2], 1], atol=1e-12)
    assert 0.4 < logit[2] < 0.5, "the case is one between 0 and 1"
    np.testing.assert_allclose(vote(cosine, 0.5), [0, 0, 0.5 * logit[2], 1], atol=1e-12)


def test_those_who_point_apart_count_fully():
    np.testing.assert_array_equal(vote(np.array([[1.0, -0.9], [-0.9, 1.0]]), 1.0), [1, 1])


def test_clones_lose_their_vote_and_are_flagged():
    rule = FoolsGold(fed_avg())
    found = rule.combine(updates_of([[4.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0, 0, 7.0], [0, 0, 7.0]]))
    np.testing.assert_allclose(found, [2.0, 1.0, 0.0])
    assert [(f.node_id, f.round, f.isolated) for f in rule.flags] == [(12, 1, True), (13, 1, True)]
    assert rule.flags[0].evidence == {"largest cosine": pytest.approx(1.0)}


def test_it_is_the_history_that_counts():
    rule = FoolsGold(fed_avg())
    rule.combine(updates_of([[10.0, 0.0], [0.0, 10.0]]))
    # alike in this round; over both: (11, 1) and (1, 11), of cosine 22/122
    found = rule.combine(updates_of([[1.0, 1.0], [1.0, 1.0]], 2))
    np.testing.assert_allclose(found, [1.0, 1.0])
    assert rule.flags == []


def test_histories_stay_with_the_node_while_it_is_away():
    rule = FoolsGold(fed_avg())
    rule.combine(updates_of([[0.0, 9.0, 0.0], [0.0, 1.0, 0.0]], nodes=[5, 6]))
    rule.combine(updates_of([[0.0, 8.0, 0.0]], 2, nodes=[6]))
    # alone in this round 5 and 6 are far apart; with their histories both are (1, 9, 0) or near
    rows = [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 5.0]]
    np.testing.assert_allclose(rule.combine(updates_of(rows, 3, nodes=[5, 6, 7])), [0, 0, 5.0])
    assert {f.node_id for f in rule.flags if f.round == 3} == {5, 6}


def test_a_round_of_clones_is_abandoned_and_a_client_alone_counts():
    rule = FoolsGold(fed_avg())
    rows = np.random.default_rng(0).normal(size=300)
    both = play(rule, lambda client, number: rows, 4, 300, rounds=2, lost=lambda k, t: t == 2 and k)
    assert both[0].change is None
    np.testing.assert_allclose(both[1].change, rows, rtol=1e-6)
    assert rule.abandoned == [(1, "FoolsGold trusts none of 4 clients")]


def test_many_sybils_with_one_aim_move_the_model_no_more_than_noise():
    def updates(client, number):
        rng = np.random.default_rng((client, number))
        if client >= 5:
            return 3.0 + 0.01 * rng.normal(size=400)
        sparse = np.zeros(400)  # each honest client has a class of its own
        sparse[client * 80 : client * 80 + 80] = 1.0
        return sparse + 0.1 * rng.normal(size=400)

    rule = FoolsGold(fed_avg())
    rounds = play(rule, updates, 15, 400, rounds=3)
    assert all(np.abs(r.change).max() < 1.5 for r in rounds)
    nodes = sorted({f.node_id for f in rule.flags})
    assert len(nodes) == 10


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf])
def test_a_confidence_out_of_range_is_refused(value):
    with pytest.raises(ConfigError, match=r"^confidence=.*: expected more than 0 and finite"):
        FoolsGold(fed_avg(), confidence=value)
