import math

import numpy as np
import pytest
from central_rounds import clipped, fed_avg, play
from scipy.stats import chi2
from secagg_federations import fedavg as hidden_fedavg
from secagg_federations import run

from fedmia.errors import ConfigError
from fedmia.privacy.claim import Setting
from fedmia.privacy.cost import Neighbours
from fedmia.privacy.tree import TreeAccount
from fedmia.secagg.protocol import Protocol
from strategies.dp_ftrl import DpFtrl

NONE = {"epsilon": math.inf}


def ftrl(clients=6, rounds=8, clip=1.0, **settings):
    return DpFtrl(fed_avg(), clip=clip, rounds=rounds, clients=clients, **settings)


def nothing(size):
    return lambda client, number: np.zeros(size)


def test_clients_take_turns_by_rank():
    found = play(ftrl(groups=3, **NONE), nothing(2), 6, 2, rounds=5)
    assert [r.asked for r in found] == [[0, 3], [1, 4], [2, 5], [0, 3], [1, 4]]


def test_clients_that_come_and_go_take_part_in_their_own_rounds_alone():
    """The rounds of each client cost no more than the schedule that is accounted for."""
    rounds, groups, clients = 12, 4, 8
    rng = np.random.default_rng(0)
    for _ in range(10):
        present = rng.random((rounds + 1, clients)) < 0.6
        present[1] = True
        present[:, 7] = True  # somebody is always there
        strategy = ftrl(clients=clients, rounds=rounds, groups=groups, **NONE)
        found = play(
            strategy, nothing(2), clients, 2, rounds, away=lambda c, t, here=present: not here[t, c]
        )
        turns = [
            [c for c in range(clients) if c % groups == (t - 1) % groups and present[t, c]]
            for t in range(1, rounds + 1)
        ]
        assert [r.asked for r in found] == turns


def test_without_noise_it_is_the_clipped_sum_over_the_mean_size_of_a_group():
    def update(client, number):
        return np.random.default_rng((client, number)).normal(size=5)

    found = play(ftrl(clients=7, groups=2, **NONE), update, 7, 5, rounds=2)
    for number, group in ((1, [0, 2, 4, 6]), (2, [1, 3, 5])):
        expected = sum(clipped(update(c, number), 1.0) for c in group) / 3.5
        np.testing.assert_allclose(found[number - 1].change, expected, atol=1e-5)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("restart", [None, 3])
def test_noise_of_a_prefix_is_that_of_its_nodes(restart, secure):
    size, z, clip = 8000, 0.9, 0.5
    strategy = ftrl(clip=clip, restart=restart, noise_multiplier=z, secure_noise=secure)
    found = play(strategy, nothing(size), 6, size, rounds=8)
    prefixes = np.cumsum([r.change for r in found], axis=0) * 6
    for t, prefix in enumerate(prefixes, start=1):
        nodes = bin(t).count("1")
        if restart:
            nodes = 2 * (t // 3) + bin(t % 3).count("1")
        statistic = float(np.sum(prefix**2)) / (nodes * (z * clip) ** 2)
        assert chi2.ppf(1e-6, size) < statistic < chi2.isf(1e-6, size), t


def test_noise_repeats_with_the_seed_alone():
    def changes(**settings):
        return [r.change for r in play(ftrl(noise_multiplier=1.0, **settings), nothing(4), 6, 4, 3)]

    np.testing.assert_array_equal(changes(), changes())
    assert not np.array_equal(changes(), changes(seed=1))
    assert not np.array_equal(changes(secure_noise=True), changes(secure_noise=True))


def test_a_round_that_was_abandoned_leaves_the_later_prefixes_as_they_would_be():
    whole = play(ftrl(noise_multiplier=1.0), nothing(6), 6, 6, rounds=4)
    strategy = ftrl(noise_multiplier=1.0)
    strategy.noise(1, 6)
    late = strategy.noise(3, 6) / 6
    together = whole[1].change + whole[2].change
    np.testing.assert_allclose(late, together, atol=1e-5)
    np.testing.assert_allclose(strategy.noise(4, 6) / 6, whole[3].change, atol=1e-5)


def test_under_secure_aggregation_it_gets_the_sum_of_the_mean():
    settings = {"clip": 9.0, "rounds": 2, "clients": 5, "clip_by": "clients"}
    protocol = Protocol(5, clip=2.0, bits=28, max_weight=50)

    def ended(noise):
        return run(protocol, inner=DpFtrl(hidden_fedavg(5), **settings, **noise)).params

    plain = run(protocol, inner=hidden_fedavg(5)).params
    summed, noisy = ended(NONE), ended({"noise_multiplier": 0.01})
    start = np.array([0.5, -0.25])
    weights = sum(10 * (client + 1) for client in range(5))
    np.testing.assert_allclose(summed["b"] - start, (plain["b"] - start) * weights / 5, atol=1e-4)
    assert 0 < np.abs(noisy["b"] - summed["b"]).max() < 0.2


def test_it_promises_what_the_tree_costs():
    strategy = ftrl(groups=3, restart=4, noise_multiplier=2.0, delta=1e-6, neighbours="replace_one")
    (claim,) = strategy.claims(Setting((5,) * 6, 8))
    assert claim.account == TreeAccount(2.0, 8, 3, 4, Neighbours.REPLACE_ONE, 1e-6)
    assert "server" not in claim.holds_against
    assert any("one round of every 3, by a schedule fixed beforehand" in r for r in claim.reasons)


def test_noise_is_found_for_the_budget_and_ends_it_where_it_is_given():
    strategy = ftrl(groups=3, epsilon=2.0)
    assert 1.99 < strategy.account.epsilon(8) <= 2.0
    stingy = ftrl(groups=3, epsilon=2.0, noise_multiplier=strategy.noise_multiplier * 0.8)
    found = play(stingy, nothing(2), 6, 2, rounds=8)
    rounds = sum(r.change is not None for r in found)
    assert 1 <= rounds < 8
    assert stingy.account.epsilon(rounds) <= 2.0 < stingy.account.epsilon(rounds + 1)
    assert stingy.stopped[0] == rounds + 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"groups": 0, **NONE}, "groups=0: expected in 1..6, a client each at least"),
        ({"groups": 7, **NONE}, "groups=7: expected in 1..6, a client each at least"),
        ({"restart": 0, **NONE}, "restart=0: expected at least 1, or null"),
        (
            {"neighbours": "swap", **NONE},
            "neighbours=swap: expected one of add_remove, replace_one",
        ),
        ({}, "noise_multiplier=None: expected a number, or epsilon to find it for"),
        ({"clip": 0, **NONE}, "clip=0: expected more than 0 and finite"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(settings, said):
    with pytest.raises(ConfigError) as error:
        ftrl(**settings)
    assert str(error.value) == said
