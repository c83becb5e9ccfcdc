import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant

from fedmia.errors import ConfigError
from fedmia.privacy.accounting import Account, gaussian_release
from fedmia.privacy.budget import Budget
from fedmia.privacy.cost import Neighbours
from fedmia.privacy.tree import TreeAccount, TreeNoise, squared_sensitivity

ADD, REPLACE = Neighbours.ADD_REMOVE, Neighbours.REPLACE_ONE


def prefix_nodes(t):
    """The nodes of the sum over rounds 1..t, largest first, as (first, last)."""
    nodes, start = [], 0
    for bit in reversed(range(t.bit_length())):
        if t >> bit & 1:
            nodes.append((start + 1, start + 2**bit))
            start += 2**bit
    return nodes


def released(rounds, restart):
    """All nodes that the prefix sums of so many rounds are made of, by going through them."""
    restart = restart or rounds
    return {
        (first + block, last + block)
        for t in range(1, rounds + 1)
        for block in [(t - 1) // restart * restart]
        for first, last in prefix_nodes(t - block)
    }


def brute(rounds, groups, restart):
    worst = 0
    for group in range(groups):
        mine = {t for t in range(1, rounds + 1) if (t - 1) % groups == group}
        nodes = released(rounds, restart)
        worst = max(worst, sum(len(mine & set(range(a, b + 1))) ** 2 for a, b in nodes))
    return worst


def test_by_hand_for_four_rounds():
    # nodes (1), (1, 2), (3), (1..4): with one turn the client of round 1 is in three of them
    assert squared_sensitivity(4, 4).tolist() == [0, 1, 2, 2, 3]
    # in every round: 1, then 2² more, then 1, then 4²
    assert squared_sensitivity(4, 1).tolist() == [0, 1, 5, 6, 22]


@pytest.mark.parametrize("restart", [None, 1, 3, 4, 8, 100])
@pytest.mark.parametrize("groups", [1, 2, 3, 5, 16])
def test_the_worst_client_is_found_as_by_counting(groups, restart):
    found = squared_sensitivity(19, groups, restart)
    assert found.shape == (20,)
    for rounds in range(1, 20):
        assert found[rounds] == brute(rounds, groups, restart), rounds


def play(rounds, restart=None):
    """Return the noise of each prefix sum in terms of the nodes' noise, shape (rounds, rounds)."""
    noise = TreeNoise(restart)
    kept, steps = [], []
    for t in range(rounds):
        unit = np.eye(rounds, dtype=np.float32)[t]
        steps.append(noise.step(lambda size, unit=unit: unit.copy(), rounds))
        kept.append(len(noise.nodes))
    return np.cumsum(steps, axis=0), kept


@pytest.mark.parametrize("rounds", [1, 2, 7, 8, 21])
def test_prefix_sums_are_what_their_nodes_add_up_to(rounds):
    noise, _ = play(rounds)
    ends = np.arange(1, rounds + 1)
    starts = ends - (ends & -ends)
    nodes = (starts[:, None] < ends) & (ends <= ends[:, None])
    np.testing.assert_array_equal(noise @ nodes, np.tri(rounds))
    for t in range(1, rounds + 1):
        assert [b for _, b in prefix_nodes(t)] == (np.flatnonzero(noise[t - 1]) + 1).tolist()


def test_only_the_nodes_of_the_last_prefix_are_kept():
    _, kept = play(21)
    assert kept == [bin(t).count("1") for t in range(1, 22)]


def test_after_a_restart_the_old_noise_stays_and_new_sums_get_their_own():
    noise, kept = play(7, restart=3)
    assert kept == [1, 1, 2, 1, 1, 2, 1]
    # rounds 1..3 end in nodes 2 and 3; rounds 4..6 in nodes 5 and 6; round 7 in a node of its own
    np.testing.assert_array_equal(noise[6], [0, 1, 1, 0, 1, 1, 1])
    np.testing.assert_array_equal(noise[3], [0, 1, 1, 1, 0, 0, 0])


@pytest.mark.parametrize("rounds", [1, 3, 8, 100])
def test_one_turn_costs_what_the_library_says_of_a_tree(rounds):
    z, delta = 3.0, 1e-5
    account = TreeAccount(z, rounds, rounds, None, ADD, delta)
    theirs = RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    theirs.compose(dp_accounting.SingleEpochTreeAggregationDpEvent(z, rounds))
    assert account.epsilon_rdp(rounds) == pytest.approx(theirs.get_epsilon(delta), rel=1e-3)
    assert 0 < account.epsilon(rounds) <= account.epsilon_rdp(rounds)


@pytest.mark.parametrize("neighbours", [ADD, REPLACE])
def test_a_new_tree_every_round_is_fresh_noise_every_round(neighbours):
    tree = TreeAccount(2.0, 30, 1, 1, neighbours, 1e-5)
    plain = Account(gaussian_release(2.0), neighbours, 1e-5)
    for rounds in (1, 7, 30):
        assert tree.epsilon(rounds) == pytest.approx(plain.epsilon(rounds), rel=1e-9)
    assert tree.method == plain.method


def test_epsilon_is_that_of_one_release_at_the_trees_sensitivity():
    account = TreeAccount(5.0, 8, 2, None, ADD, 1e-6)
    s = math.sqrt(brute(8, 2, None))
    exact = Account(gaussian_release(5.0 / s), ADD, 1e-6).epsilon(1)
    assert account.epsilon(8) == pytest.approx(exact, rel=1e-9)
    assert account.epsilon(0) == account.epsilon_rdp(0) == 0


def test_epsilon_grows_with_rounds_and_with_turns_and_falls_with_noise():
    account = TreeAccount(4.0, 32, 8, None, ADD, 1e-5)
    curve = account.curve(range(33))
    assert curve == sorted(curve)
    assert curve[1] < curve[32]
    assert TreeAccount(4.0, 32, 4, None, ADD, 1e-5).epsilon(32) > curve[32]
    assert TreeAccount(8.0, 32, 8, None, ADD, 1e-5).epsilon(32) < curve[32]
    assert TreeAccount(0.0, 32, 8, None, ADD, 1e-5).epsilon(1) == math.inf


def test_to_replace_costs_twice_the_sensitivity():
    account = TreeAccount(8.0, 16, 4, None, REPLACE, 1e-5)
    half = TreeAccount(4.0, 16, 4, None, ADD, 1e-5)
    assert account.epsilon(16) == pytest.approx(half.epsilon(16), rel=1e-6)
    assert account.under(ADD).epsilon(16) < account.epsilon(16)


def test_affordable_is_the_last_round_within_the_budget():
    account = TreeAccount(4.0, 32, 8, None, ADD, 1e-5)
    budget = account.epsilon(11)
    found = account.affordable(budget, 32)
    assert found >= 11
    assert account.epsilon(found) <= budget < account.epsilon(found + 1)


def test_noise_is_found_for_a_budget():
    def account_of(z):
        return TreeAccount(z, 20, 5, None, ADD, 1e-5)

    settled = Budget(None, 3.0, 1e-5).settle(20, account_of)
    spent = account_of(settled.noise_multiplier).epsilon(20)
    assert 2.99 < spent <= 3.0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((-1.0, 5, 1, None), r"^noise_multiplier=-1.0: expected at least 0$"),
        ((1.0, 0, 1, None), r"^rounds=0: expected at least 1$"),
        ((1.0, 5, 0, None), r"^groups=0: expected at least 1$"),
        ((1.0, 5, 1, 0), r"^restart=0: expected at least 1, or null$"),
    ],
)
def test_what_makes_no_tree_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        TreeAccount(*settings, ADD, 1e-5)


def test_rounds_beyond_the_tree_are_refused():
    with pytest.raises(ConfigError, match=r"^rounds=6: expected in 1..5$"):
        TreeAccount(1.0, 5, 1, None, ADD, 1e-5).epsilon(6)
