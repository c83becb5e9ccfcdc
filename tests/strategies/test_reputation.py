"""Reputations by hand, whom they isolate and let back, and that they outlive the server."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from torch import nn

from fedmia.errors import ConfigError
from strategies.reputation import Reputation
from strategies.updates import Updates
from tests.strategies.central_rounds import fed_avg, play

SIZE, CLIENTS = 60, 10
BASE = np.random.default_rng(0).normal(size=SIZE)


def honest(client, number):
    """A direction that all share, and as much noise of one's own."""
    return BASE + np.random.default_rng((client, number)).normal(size=SIZE)


def flipping(*clients, since=1, until=math.inf):
    def update(client, number):
        bad = client in clients and since <= number < until
        return honest(client, number) * (-1 if bad else 1)

    return update


def ranks(strategy):
    """The place of each node id among all."""
    return {node: place for place, node in enumerate(sorted(strategy.standings))}


def isolated(strategy):
    """Who is isolated after each round, by rank."""
    place = ranks(strategy)
    return [sorted(place[node] for node in nodes) for _, nodes in strategy.isolations]


def reputations(strategy, server_round):
    (row,) = [row for number, row in strategy.reputations if number == server_round]
    return [row[node] for node in sorted(row)]


def test_two_rounds_by_hand():
    rows = {
        1: [[1, 0], [1, 0], [0, 1]],
        2: [[1, 0], [5, 0], [1, 0]],
    }
    settings = {"decay": 0.8, "initial": 0.5, "memory": 0.5, "largest_norm": 4, "penalty": 0.5}
    strategy = Reputation(fed_avg(), **settings)
    first, second = play(strategy, lambda k, t: np.array(rows[t][k], float), 3, 2, rounds=2)

    # Cosines with the median of the others: 1, 1, 0, and so are they against the median client.
    r = np.array([0.8 * 0.5 + 0.2, 0.8 * 0.5 + 0.2, 0.8 * 0.5])
    np.testing.assert_allclose(reputations(strategy, 1), r, atol=1e-3)
    np.testing.assert_allclose(first.change, [1.2 / 1.6, 0.4 / 1.6], atol=1e-3)
    # Now all agree; the third is at odds with its past; the second is cut to 1, and punished.
    r = np.array([0.8 * 0.6 + 0.2, (0.8 * 0.6 + 0.2) / 2, 0.8 * 0.4])
    np.testing.assert_allclose(reputations(strategy, 2), r, atol=1e-3)
    np.testing.assert_allclose(second.change, [1, 0], atol=1e-6)
    (flag,) = strategy.flags
    assert flag.reason == "the update is longer than 4 medians"
    assert flag.evidence["norm_over_median"] == pytest.approx(5)
    assert not flag.isolated
    histories = [strategy.standings[node].history for node in sorted(strategy.standings)]
    np.testing.assert_allclose(histories, [[1.5, 0], [1.5, 0], [1, 0.5]])


def test_a_good_name_buys_no_larger_step():
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [40.0, 0.0]])
    strategy = Reputation(fed_avg(), largest_norm=100)
    (only,) = play(strategy, lambda k, t: rows[k], 3, 2)
    np.testing.assert_allclose(only.change, [1, 0], atol=1e-6)


def test_a_sign_flipper_loses_its_reputation_and_is_isolated_after_the_grace():
    strategy = Reputation(fed_avg(), grace=5)
    rounds = play(strategy, flipping(8, 9), CLIENTS, SIZE, rounds=12)
    assert isolated(strategy) == [[]] * 5 + [[8, 9]] * 7
    place = ranks(strategy)
    assert {(f.round, place[f.node_id], f.isolated) for f in strategy.flags} == {
        (6, 8, True),
        (6, 9, True),
    }
    assert all(f.evidence["reputation"] < f.evidence["limit"] for f in strategy.flags)
    assert all(f.evidence["agreement"] == 0 for f in strategy.flags)
    assert [sorted(r.asked) for r in rounds[6:]] == [list(range(8))] * 6
    assert min(reputations(strategy, 12)[:8]) > 0.7


def test_nobody_honest_is_isolated():
    strategy = Reputation(fed_avg(), grace=1)
    play(strategy, honest, CLIENTS, SIZE, rounds=15)
    assert not strategy.flags
    assert isolated(strategy) == [[]] * 15


def test_where_clients_have_nothing_in_common_nobody_is_blamed():
    strategy = Reputation(fed_avg(), grace=1)
    rounds = play(strategy, lambda k, t: np.eye(CLIENTS)[k], CLIENTS, CLIENTS, rounds=10)
    assert not strategy.flags
    assert set(reputations(strategy, 10)) == {0.5}
    np.testing.assert_allclose(rounds[-1].change, 1 / CLIENTS, rtol=1e-5)


def test_consistency_alone_earns_nothing_and_can_be_lost():
    def update(client, number):
        return np.eye(CLIENTS)[client] * (-1 if client == 4 and number > 3 else 1)

    strategy = Reputation(fed_avg(), grace=1)
    play(strategy, update, CLIENTS, CLIENTS, rounds=8)
    last = reputations(strategy, 8)
    assert last[4] < 0.3
    assert set(last[:4] + last[5:]) == {0.5}


def test_a_client_that_turns_bad_after_ten_rounds_is_caught():
    strategy = Reputation(fed_avg())
    play(strategy, flipping(4, since=11), CLIENTS, SIZE, rounds=20)
    (flag,) = strategy.flags
    assert ranks(strategy)[flag.node_id] == 4
    assert 11 < flag.round <= 18
    assert isolated(strategy)[-1] == [4]


def test_noise_without_direction_is_caught():
    def update(client, number):
        noise = np.random.default_rng((9, client, number)).normal(size=SIZE)
        return noise * np.linalg.norm(BASE) / 8 if client == 2 else honest(client, number)

    strategy = Reputation(fed_avg())
    play(strategy, update, CLIENTS, SIZE, rounds=10)
    assert isolated(strategy)[-1] == [2]


def test_an_isolated_client_waits_is_watched_without_weight_and_comes_back():
    strategy = Reputation(fed_avg(), grace=2, redemption=4)
    rounds = play(strategy, flipping(3, until=8), CLIENTS, SIZE, rounds=14)
    first = next(f.round for f in strategy.flags)
    asked = [3 in r.asked for r in rounds]
    assert asked == [True] * first + [False] * 4 + [True] * (14 - first - 4)
    back = next(t for t, who in enumerate(isolated(strategy), 1) if t > first and not who)
    assert back > first + 5, "it is watched before it is let back"
    for number in range(first + 5, back):  # on probation
        others = [honest(k, number) for k in range(CLIENTS) if k != 3]
        spread = max(map(np.linalg.norm, others))
        assert np.linalg.norm(rounds[number - 1].change) < spread
    assert len(strategy.flags) == 1
    assert isolated(strategy)[-1] == []


def test_one_on_probation_moves_nothing():
    known = Reputation(fed_avg(), grace=0, redemption=1)
    nodes = (1, 2, 3, 4)
    for node in nodes:
        known.standings[node] = known.terms.newcomer()
    known.standings[4].isolated, known.standings[4].reputation = True, 0.1
    rows = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    updates = Updates(1, nodes, rows, np.ones(4, np.int64), np.zeros(2, np.float32), np.ones(4))
    np.testing.assert_allclose(known.combine(updates), [1, 0])
    assert known.standings[4].reputation == pytest.approx(0.08)


def test_without_redemption_nobody_comes_back():
    strategy = Reputation(fed_avg(), grace=2, redemption=None)
    rounds = play(strategy, flipping(3, until=6), CLIENTS, SIZE, rounds=20)
    assert 3 not in rounds[-1].asked
    assert isolated(strategy)[-1] == [3]


def test_a_rejected_update_costs_reputation_and_in_the_end_isolates():
    def update(client, number):
        return np.full(SIZE, np.nan) if client == 1 else honest(client, number)

    strategy = Reputation(fed_avg(), grace=3, penalty=0.5)
    play(strategy, update, CLIENTS, SIZE, rounds=4)
    assert reputations(strategy, 3)[1] == pytest.approx(0.5**4)
    assert isolated(strategy) == [[], [], [], [1]]
    assert [f.reason for f in strategy.flags][-1] == "its reputation is too low"
    assert sum("not finite" in f.reason for f in strategy.flags) == 4


def test_to_be_away_or_lost_is_no_crime():
    strategy = Reputation(fed_avg(), grace=1)
    play(
        strategy,
        honest,
        CLIENTS,
        SIZE,
        rounds=12,
        lost=lambda k, t: k == 5 and t > 2,
        away=lambda k, t: k == 6 and t % 3 > 0,
    )
    values = [reputations(strategy, t)[5] for t in range(2, 13)]
    assert len(set(values)) == 1
    assert not strategy.flags
    standing = [strategy.standings[node] for node in sorted(strategy.standings)]
    assert [standing[5].judged, standing[6].judged, standing[7].judged] == [2, 4, 12]


def test_sampled_clients_are_judged_when_they_take_part():
    strategy = Reputation(fed_avg(fraction_train=0.5), grace=2)
    play(strategy, flipping(0), CLIENTS, SIZE, rounds=30)
    assert isolated(strategy)[-1] == [0]
    assert {ranks(strategy)[f.node_id] for f in strategy.flags} == {0}


def test_of_two_updates_nobody_is_judged():
    strategy = Reputation(fed_avg())
    rounds = play(strategy, lambda k, t: [BASE, -BASE][k], 2, SIZE, rounds=3)
    assert [r for r, _ in strategy.fallbacks] == [1, 2, 3]
    assert "2 updates of median norm" in strategy.fallbacks[0][1]
    assert reputations(strategy, 3) == [0.5, 0.5]
    np.testing.assert_allclose(rounds[0].change, 0, atol=1e-6)


def test_updates_of_nothing_are_not_judged():
    strategy = Reputation(fed_avg(), grace=0)
    rounds = play(strategy, lambda k, t: np.zeros(SIZE), CLIENTS, SIZE, rounds=3)
    assert reputations(strategy, 3) == [0.5] * CLIENTS
    np.testing.assert_array_equal(rounds[0].change, 0)


def test_a_free_rider_among_honest_clients_is_isolated():
    strategy = Reputation(fed_avg())
    play(strategy, lambda k, t: np.zeros(SIZE) if k == 7 else honest(k, t), CLIENTS, SIZE, rounds=8)
    assert isolated(strategy)[-1] == [7]


def test_when_all_are_isolated_the_round_is_abandoned_and_the_model_stays():
    strategy = Reputation(fed_avg(), grace=0, floor=0.4, penalty=0.1, redemption=2)
    bad = np.full(SIZE, np.inf)
    rounds = play(strategy, lambda k, t: bad if t == 1 else BASE, 4, SIZE, rounds=6)
    assert isolated(strategy)[0] == [0, 1, 2, 3]
    assert [r.asked for r in rounds[1:3]] == [[], []]
    assert sorted(rounds[3].asked) == [0, 1, 2, 3]
    said = dict(strategy.abandoned)
    assert said[2] == "all 4 clients are isolated"
    assert said[4] == "Reputation trusts none of 4 clients"
    assert [r.change for r in rounds[:4]] == [None] * 4
    assert rounds[-1].change is not None, "all agree, so all earn their way back"


@dataclass
class Target:
    """A root set whose loss is the distance of the first coordinates to a point."""

    point: np.ndarray

    def at(self, flat):
        return flat

    def loss(self, flat):
        return float(np.linalg.norm(flat - self.point))


def test_a_root_set_tells_who_helps_where_the_others_do_not_agree():
    rows = np.eye(CLIENTS, dtype=np.float32)
    rows[3] *= -1
    strategy = Reputation(fed_avg(), root_samples=5)
    strategy.equip(Target(np.ones(CLIENTS, np.float32)))
    nodes = tuple(range(CLIENTS))
    model, count = np.zeros(CLIENTS, np.float32), np.ones(CLIENTS, np.int64)
    change = strategy.combine(Updates(1, nodes, rows, count, model, np.ones(CLIENTS)))
    found = [strategy.standings[node].reputation for node in nodes]
    np.testing.assert_allclose(found, [0.6] * 3 + [0.4] + [0.6] * 6, rtol=1e-6)
    np.testing.assert_allclose(change[[0, 3]], [0.6 / 5.8, -0.4 / 5.8], rtol=1e-5)


def test_ten_rounds_are_five_and_a_restart_and_five(tmp_path):
    def update(client, number):
        return flipping(2, 6, until=9)(client, number)

    settings = {"grace": 2, "redemption": 3}
    whole = Reputation(fed_avg(), **settings)
    at_once = play(whole, update, CLIENTS, SIZE, rounds=10)
    path = str(tmp_path / "state.safetensors")
    play(Reputation(fed_avg(), state_file=path, **settings), update, CLIENTS, SIZE, rounds=5)
    again = Reputation(fed_avg(), state_file=path, **settings)
    later = play(again, lambda k, t: update(k, t + 5), CLIENTS, SIZE, rounds=5)

    assert [set(r.asked) for r in later] == [set(r.asked) for r in at_once[5:]]
    moved = [r.change for r in at_once[5:]]
    np.testing.assert_allclose([r.change for r in later], moved, atol=1e-5)
    assert [sorted(nodes) for _, nodes in again.isolations] == [
        sorted(nodes) for _, nodes in whole.isolations[5:]
    ]
    for number in range(1, 6):
        expected = reputations(whole, number + 5)
        np.testing.assert_allclose(reputations(again, number), expected, rtol=1e-4)
    assert again.reputations[-1][1].keys() == whole.reputations[-1][1].keys()


def test_the_state_is_of_one_model(tmp_path):
    path = str(tmp_path / "state")
    play(Reputation(fed_avg(), state_file=path), honest, 3, SIZE)
    again = Reputation(fed_avg(), state_file=path)
    again.check_model(nn.Linear(SIZE - 1, 1))
    said = r"^state_file=\S+: expected updates of 5 coordinates, as of this model; it has 60$"
    with pytest.raises(ConfigError, match=said):
        again.check_model(nn.Linear(4, 1))


def test_a_damaged_state_is_refused_at_once(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"not a state")
    with pytest.raises(ConfigError, match=r"^state_file=\S+: expected reputations that"):
        Reputation(fed_avg(), state_file=str(path))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"agreement": 0.0}, "agreement=0.0: expected more than 0 and finite"),
        ({"consistency": -1.0}, "consistency=-1.0: expected at least 0 and finite"),
        ({"gain": math.inf}, "gain=inf: expected at least 0 and finite"),
        ({"least_cosine": 1.0}, r"least_cosine=1.0: expected in \[0, 1\)"),
        ({"memory": 1.1}, r"memory=1.1: expected in \[0, 1\]"),
        ({"largest_norm": 0.5}, "largest_norm=0.5: expected at least 1"),
        ({"root_samples": -1}, "root_samples=-1: expected at least 0"),
        ({"decay": 1.0}, r"decay=1.0: expected in \[0, 1\)"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(ConfigError, match=f"^{said}$"):
        Reputation(fed_avg(), **settings)


def test_a_state_file_that_cannot_be_there_is_one_line_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "state"):
        with pytest.raises(ConfigError, match=r"^state_file=.*: expected a writable file"):
            Reputation(fed_avg(), state_file=str(path))
