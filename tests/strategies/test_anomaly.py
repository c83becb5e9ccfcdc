"""Anomaly detection around strategies: planted clients are found, honest ones are let be."""

import numpy as np
import pytest
from flwr.serverapp.strategy import FedMedian

from fedmia.errors import ConfigError
from strategies.anomaly import Anomaly
from strategies.dp_central import DpCentral
from strategies.robust import Robust
from tests.strategies.central_rounds import fed_avg, play

SIZE, CLIENTS = 60, 10
COMMON = np.random.default_rng(0).normal(size=SIZE) / np.sqrt(SIZE)


def honest(client, number):
    """What all clients agree on, and as much noise of their own."""
    noise = np.random.default_rng([client, number]).normal(size=SIZE)
    return 0.1 * (COMMON + noise / np.sqrt(SIZE))


def with_attacker(attack, who=(9,), since=4):
    def update(client, number):
        own = honest(client, number)
        return attack(own, client, number) if client in who and number >= since else own

    return update


ATTACKS = {
    "sign flip": lambda own, client, number: -own,
    "noise": lambda own, client, number: np.random.default_rng(number).normal(size=SIZE),
    "scaled": lambda own, client, number: 10 * own,
    "nothing": lambda own, client, number: np.zeros(SIZE),
}


def anomaly(inner=None, rounds=30, **settings):
    settings = {"warmup_rounds": 3} | settings
    return Anomaly(fed_avg() if inner is None else inner, rounds, **settings)


def flagged(strategy, nodes):
    return [(flag.round, nodes.index(flag.node_id)) for flag in strategy.flags]


def nodes_of(clients=CLIENTS):
    """The nodes of ``play``, which follow from its seed, in the order of its clients."""
    found = []

    class Asked(FedMedian):
        def configure_train(self, server_round, arrays, config, grid):
            found.extend(sorted(grid.get_node_ids()))
            return []

    play(Asked(), honest, clients, SIZE)
    return found


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_planted_client_is_flagged_in_its_first_round_with_evidence(attack):
    strategy = anomaly()
    played = play(strategy, with_attacker(ATTACKS[attack]), CLIENTS, SIZE, rounds=5)
    (flag,) = strategy.flags
    assert flagged(strategy, nodes_of()) == [(4, 9)]
    assert flag.isolated
    assert flag.evidence["features_beyond"] >= 2
    assert max(abs(v) for k, v in flag.evidence.items() if k.startswith("z of ")) > 6
    rest = np.mean([honest(k, 4) for k in range(9)], axis=0)
    np.testing.assert_allclose(played[3].change, rest, atol=1e-6)
    assert sorted(played[4].asked) == list(range(9))


def test_few_honest_clients_are_flagged():
    strategy = anomaly(isolate=False)
    play(strategy, honest, CLIENTS, SIZE, rounds=30)
    assert len(strategy.flags) <= 0.03 * 27 * CLIENTS


def test_nobody_is_flagged_in_the_warm_up():
    strategy = anomaly(warmup_rounds=5)
    play(strategy, with_attacker(ATTACKS["scaled"], since=1), CLIENTS, SIZE, rounds=5)
    assert strategy.flags == []


def test_without_isolation_flags_are_all_that_happens():
    strategy, plain = anomaly(isolate=False), fed_avg()
    update = with_attacker(ATTACKS["scaled"])
    played, expected = (play(s, update, CLIENTS, SIZE, rounds=6) for s in (strategy, plain))
    assert flagged(strategy, nodes_of()) == [(4, 9), (5, 9), (6, 9)]
    assert not any(flag.isolated for flag in strategy.flags)
    for one, other in zip(played, expected, strict=True):
        np.testing.assert_allclose(one.change, other.change, atol=1e-7)


def test_an_isolated_client_is_asked_again_when_its_rounds_are_over():
    strategy = anomaly(isolation_rounds=2)
    update = with_attacker(lambda own, client, number: -own if number == 4 else own)
    played = play(strategy, update, CLIENTS, SIZE, rounds=8)
    assert [9 in only.asked for only in played] == [True] * 4 + [False] * 2 + [True] * 2
    assert flagged(strategy, nodes_of()) == [(4, 9)]


def test_for_good_is_for_good():
    strategy = anomaly(isolation_rounds=None)
    played = play(strategy, with_attacker(ATTACKS["scaled"]), CLIENTS, SIZE, rounds=12)
    assert all(9 not in only.asked for only in played[4:])


@pytest.mark.parametrize("isolate", [True, False])
def test_what_is_no_update_is_rejected_even_in_the_warm_up(isolate):
    strategy = anomaly(isolate=isolate)
    bad = np.full(SIZE, np.nan)
    (only,) = play(strategy, with_attacker(lambda *_: bad, since=1), CLIENTS, SIZE)
    assert flagged(strategy, nodes_of()) == [(1, 9)]
    rest = np.mean([honest(k, 1) for k in range(9)], axis=0)
    np.testing.assert_allclose(only.change, rest, atol=1e-6)


def test_where_all_are_isolated_nobody_is_asked_and_the_model_stays():
    strategy = anomaly(isolation_rounds=None, threshold=1e-6, agreeing=1)
    played = play(strategy, honest, CLIENTS, SIZE, rounds=5)
    assert [only.change is None for only in played] == [False] * 3 + [True] * 2
    assert played[4].asked == []
    assert strategy.abandoned == [
        (4, "all 10 updates are rejected or suspicious"),
        (5, "all 10 clients are isolated"),
    ]


def test_too_few_updates_flag_nobody_and_say_so():
    strategy = anomaly(warmup_rounds=0)
    play(strategy, honest, CLIENTS, SIZE, lost=lambda client, number: client > 2)
    reason = "3 updates, none stands out of fewer than 4: nobody is flagged"
    assert (strategy.flags, strategy.fallbacks) == ([], [(1, reason)])


def test_a_client_that_comes_and_goes_is_compared_with_its_own_last_update():
    strategy = anomaly(isolate=False)
    away = lambda client, number: (client + number) % 3 == 0  # noqa: E731
    play(strategy, with_attacker(ATTACKS["sign flip"]), CLIENTS, SIZE, rounds=9, away=away)
    found = {client for _, client in flagged(strategy, nodes_of())}
    assert found == {9}


def test_a_client_that_comes_late_does_not_stand_out_for_it():
    strategy = anomaly()
    late = lambda client, number: client == 5 and number < 6  # noqa: E731
    played = play(strategy, honest, CLIENTS, SIZE, rounds=6, away=late)
    assert 5 in played[5].asked
    assert strategy.flags == []


def test_a_robust_rule_inside_gets_what_is_left():
    class Mean(Robust):
        def combine(self, updates):
            self.seen = len(updates)
            return updates.matrix.mean(axis=0)

    rule = Mean(fed_avg())
    strategy = anomaly(rule)
    play(strategy, with_attacker(ATTACKS["scaled"]), CLIENTS, SIZE, rounds=4)
    assert rule.seen == 9


def test_a_strategy_that_adds_noise_releases_the_same_with_flags_alone():
    def central():
        settings = {"noise_multiplier": 1.0, "epsilon": None}
        return DpCentral(fed_avg(), 0.2, 30, CLIENTS, **settings)

    strategy = anomaly(central(), isolate=False)
    update = with_attacker(ATTACKS["scaled"])
    played, expected = (play(s, update, CLIENTS, SIZE, rounds=4) for s in (strategy, central()))
    for one, other in zip(played, expected, strict=True):
        np.testing.assert_array_equal(one.change, other.change)
    assert flagged(strategy, nodes_of()) == [(4, 9)]


def test_noise_is_released_though_every_update_is_rejected():
    settings = {"noise_multiplier": 1.0, "epsilon": None}
    strategy = anomaly(DpCentral(fed_avg(), 0.2, 30, CLIENTS, **settings), isolate=False)
    (only,) = play(strategy, lambda *_: np.full(SIZE, np.nan), CLIENTS, SIZE)
    assert only.change is not None
    assert np.abs(only.change).max() > 0
    assert len(strategy.flags) == CLIENTS


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"detector": "gan"}, "detector=gan: expected one of robust_z, autoencoder, vae"),
        ({"threshold": 0.0}, "threshold=0.0: expected more than 0 and finite"),
        ({"agreeing": 0}, "agreeing=0: expected at least 1"),
        ({"floor": 0.0}, "floor=0.0: expected more than 0 and finite"),
        ({"warmup_rounds": 30}, "warmup_rounds=30: expected at least 0, and below rounds=30"),
        ({"detector": "vae", "warmup_rounds": 1}, "warmup_rounds=1: expected at least 2"),
        ({"isolation_rounds": 0}, "isolation_rounds=0: expected null or at least 1"),
        ({"detector_rounds": 0}, "detector_rounds=0: expected at least 1"),
        ({"validation": 1.0}, "validation=1.0: expected in"),
        ({"quantile": 0.0}, "quantile=0.0: expected in"),
        ({"sigmas": -1.0}, "sigmas=-1.0: expected at least 0 and finite"),
        ({"hidden": 0}, "hidden=0: expected at least 1"),
        ({"timeout_s": 0.0}, "timeout_s=0.0: expected null or more than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        anomaly(**settings)


def test_rounds_of_too_few_clients_are_refused():
    with pytest.raises(ConfigError, match=r"detector=robust_z: expected .* at least 4 clients"):
        anomaly().check_asked(3)
    anomaly().check_asked(4)


def test_an_answer_that_could_not_be_averaged_is_rejected_and_training_goes_on():
    def told(client):
        return {"num-examples": 1} | ({"boast": 1.0} if client == 2 else {})

    strategy = anomaly()
    found = play(strategy, lambda client, number: np.full(SIZE, client), 4, SIZE, metrics=told)
    np.testing.assert_allclose(found[0].change, (0 + 1 + 3) / 3)
    (flag,) = strategy.flags
    assert (flag.round, flag.isolated) == (1, True)
    assert flag.reason == "its answer has other records than most"
