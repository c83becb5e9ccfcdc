"""A rule over groups gets the exact mean of each group under masks, and nothing of one client."""

import random
from itertools import chain

import numpy as np
import pytest
import secagg_federations
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, FedMedian
from secagg_federations import (
    STAGES,
    START,
    Federation,
    expected,
    fail,
    fedavg,
    update,
)

from fedmia.arrays import to_params, to_record
from fedmia.errors import ConfigError
from fedmia.grid.serial import Serial
from fedmia.records import MASKED
from fedmia.secagg.noise import Noise
from fedmia.secagg.protocol import Protocol
from strategies.anomaly import Anomaly
from strategies.grouped_sums import GroupedSums
from strategies.groups import Grouping
from strategies.krum import Krum
from strategies.robust import Robust
from strategies.secagg_plus import SecAggPlus

KEYS, SHARES, TRAIN, _, UNMASK = STAGES
FOUR = Protocol(4, clip=2.0)
"""Groups of four, of whom one may be lost."""


class Middle(Robust):
    """The median of what it sees, which it keeps."""

    def __init__(self, inner):
        super().__init__(inner)
        self.rounds = {}

    def combine(self, updates):
        self.rounds[updates.server_round] = updates
        return np.median(updates.matrix, axis=0)


def play(strategy, clients, meddling=None, rounds=1):
    """Train; return the last model, who was there (node ids by client), and what was sent."""
    federation, models, nodes = Federation(strategy.protocol, meddling or {}), [], []
    random.seed(5)

    def main(grid):
        nodes.extend(by_client(grid))
        strategy.start(
            grid,
            to_record(START),
            num_rounds=rounds,
            evaluate_fn=lambda _, arrays: models.append(to_params(arrays)),
        )

    Serial().run(federation, clients, 3, main)
    return models[-1], nodes, federation


def by_client(grid):
    """Return the node ids by client number."""
    ids = grid.get_node_ids()
    return sorted(ids, key=lambda node: grid.partition_of(Message(RecordDict(), node, "train")))


def first_group(clients):
    """Return the client numbers of the first group, as they will be."""
    nodes = Serial().run(ClientApp, clients, 3, by_client)
    return [nodes.index(n) for n in next(iter(Grouping(4, clients).of(nodes).values()))]


def grouped(inner, clients, size=4, protocol=FOUR, **settings):
    return GroupedSums(inner, protocol, size, clients, **settings)


def members(strategy, nodes):
    """The client numbers of each group, by the group's name."""
    return {head: [nodes.index(n) for n in group] for head, group in strategy.groups.items()}


def near(found, wanted):
    return np.allclose(flat(found), flat(wanted), rtol=0, atol=1e-6)


def flat(params):
    return np.concatenate([params[k].reshape(-1) for k in ("w", "b")])


def test_the_rule_gets_the_exact_mean_of_each_group_as_one_client():
    rule = Middle(fedavg(1))
    strategy = grouped(rule, 11)
    _, nodes, _ = play(strategy, 11)
    groups, seen = members(strategy, nodes), rule.rounds[1]
    assert sorted(chain(*groups.values())) == list(range(11))
    assert sorted(map(len, groups.values())) == [3, 4, 4]
    assert seen.nodes == tuple(groups)
    for row, clients in zip(seen.matrix, groups.values(), strict=True):
        params, _ = expected(FOUR, clients)
        np.testing.assert_array_equal(row, (flat(params) - flat(START)).astype(np.float32))


def test_a_groups_mean_is_the_plain_weighted_mean_within_the_bound_of_rounding():
    rule = Middle(fedavg(1))
    strategy = grouped(rule, 8)
    _, nodes, _ = play(strategy, 8)
    weights = 10.0 * (np.arange(8) + 1)
    alone = np.stack([0.1 * (np.cos(1.0 + k) - flat(START)) for k in range(8)])
    seen = rule.rounds[1]
    for place, clients in enumerate(members(strategy, nodes).values()):
        mean = np.average(alone[clients], axis=0, weights=weights[clients])
        error = np.abs(seen.matrix[place] - mean).max()
        assert 0 < error <= FOUR.codec.error_bound + 1e-6
        assert seen.examples[place] == weights[clients].sum()
        assert strategy.seen[1][place].num_examples == seen.examples[place]


def test_with_a_linear_rule_over_groups_comes_the_sum_of_all():
    strategy = grouped(fedavg(1), 8, protocol=Protocol(4, clip=2.0, bits=28, max_weight=100))
    params, _, _ = play(strategy, 8, rounds=2)
    whole = SecAggPlus(fedavg(8), Protocol(8, clip=2.0, bits=28, max_weight=100))
    wanted, _, _ = play(whole, 8, rounds=2)
    for name in ("w", "b"):
        np.testing.assert_allclose(params[name], wanted[name], rtol=0, atol=1e-6)


def test_groups_stay_for_the_run_and_follow_from_seed_and_nodes_alone():
    strategy = grouped(Middle(fedavg(1)), 12)
    _, nodes, _ = play(strategy, 12, rounds=2)
    assert strategy.inner.rounds[1].nodes == strategy.inner.rounds[2].nodes
    assert Grouping(4, 12).of(reversed(nodes)) == strategy.groups
    others = [Grouping(4, 12, seed).of(nodes) for seed in range(1, 4)]
    assert any(other != strategy.groups for other in others)
    for head, group in strategy.groups.items():
        assert head == min(group)


def test_what_is_kept_for_the_servers_view_are_the_sums_of_groups_alone():
    rule = Middle(fedavg(1))
    strategy = grouped(rule, 8)
    play(strategy, 8)
    server_round, seen = strategy.seen
    assert server_round == 1
    assert tuple(one.node_id for one in seen) == tuple(strategy.groups)
    for one, row in zip(seen, rule.rounds[1].matrix, strict=True):
        np.testing.assert_allclose(flat(one.delta), row, rtol=0, atol=1e-6)
        assert list(one.delta) == list(START)
        assert one.delta["seen"] == 0
        assert {k: v.dtype for k, v in one.delta.items()} == {k: v.dtype for k, v in START.items()}


def test_one_lost_client_leaves_the_exact_sum_of_the_others_of_its_group():
    rule = Middle(fedavg(1))
    strategy = grouped(rule, 8)
    _, nodes, _ = play(strategy, 8, {(2, TRAIN): fail})
    for row, clients in zip(rule.rounds[1].matrix, members(strategy, nodes).values(), strict=True):
        params, _ = expected(FOUR, [k for k in clients if k != 2])
        np.testing.assert_array_equal(row, (flat(params) - flat(START)).astype(np.float32))


@pytest.mark.parametrize("stage", [KEYS, SHARES, TRAIN, UNMASK])
def test_a_group_without_a_sum_is_left_out_and_the_others_are_summed(stage):
    rule = Middle(fedavg(1))
    strategy = grouped(rule, 12)
    lost = first_group(12)
    _, there, _ = play(strategy, 12, {(k, stage): fail for k in lost[:3]})
    groups = members(strategy, there)
    assert lost in groups.values()
    assert strategy.fallbacks == [(1, "a group of 4 is left out, it has no sum")]
    assert strategy.abandoned == []
    kept = [head for head, clients in groups.items() if clients != lost]
    assert rule.rounds[1].nodes == tuple(kept)
    assert [one.node_id for one in strategy.seen[1]] == kept


@pytest.mark.parametrize("stage", [KEYS, TRAIN])
def test_a_round_without_any_group_is_abandoned_and_the_next_one_works(stage):
    calls = []

    def once(message, proceed):
        calls.append(message)
        if len(calls) <= 8:
            raise ConnectionError("lost on purpose")
        return proceed()

    rule = Middle(fedavg(1))
    strategy = grouped(rule, 8)
    play(strategy, 8, {(k, stage): once for k in range(8)}, rounds=2)
    assert strategy.abandoned == [(1, "no group could be summed")]
    assert list(rule.rounds) == [2]
    assert strategy.seen[0] == 2


def test_a_group_with_attackers_is_outvoted(monkeypatch):
    bad = first_group(20)

    def flipped(client, params):
        """An attacker turns its update around, under its mask."""
        honest = update(client, params)
        return {k: -40 * v for k, v in honest.items()} if client in bad[:2] else honest

    monkeypatch.setattr(secagg_federations, "update", flipped)
    strategy = grouped(Krum(fedavg(1), byzantine=1), 20)
    params, nodes, _ = play(strategy, 20)
    groups = members(strategy, nodes)
    assert bad in groups.values()
    chosen = [w for w in groups.values() if near(params, expected(FOUR, w)[0])]
    assert len(chosen) == 1
    assert chosen != [bad]
    mean, _, _ = play(grouped(fedavg(1), 20), 20)
    monkeypatch.undo()
    honest, _, _ = play(grouped(fedavg(1), 20), 20)
    astray, kept = (np.linalg.norm(flat(m) - flat(honest)) for m in (mean, params))
    assert astray > 3 * kept


def test_groups_are_sampled_and_isolated_as_wholes():
    class Without(Middle):
        def admitted(self, server_round, nodes):
            self.asked = sorted(nodes)
            return self.asked[1:]

    rule = Without(FedAvg(fraction_train=0.5, fraction_evaluate=0.0, min_train_nodes=1))
    strategy = grouped(rule, 16)
    _, nodes, federation = play(strategy, 16)
    assert strategy.hands_on == len(rule.asked) == 2
    asked = {client for client, stage in federation.seen if stage == TRAIN}
    assert asked == {nodes.index(n) for n in strategy.groups[rule.asked[1]]}


def test_the_wrapped_rule_waits_for_groups_not_for_clients():
    strategy = grouped(FedMedian(min_available_nodes=12, fraction_evaluate=0.0), 12)
    params, _, _ = play(strategy, 12)
    assert strategy.inner.min_available_nodes == 3
    assert not np.array_equal(params["w"], START["w"])


def test_no_update_travels_in_the_open():
    answers = []

    def keep(message, proceed):
        answers.append(proceed())
        return answers[-1]

    play(grouped(Middle(fedavg(1)), 8), 8, {(k, TRAIN): keep for k in range(8)})
    assert len(answers) == 8
    assert all(list(a.content.array_records) == [MASKED] for a in answers)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 2}, "group_size=2: expected at least 3 clients for a sum of others"),
        ({"size": 12}, "group_size=12: expected less than 12, the clients"),
        ({"clients": 10, "size": 3, "protocol": Protocol(3, dropout=0)}, "make 4 groups of 2"),
        ({"size": 6}, "protocol.cohort=4: expected at least group_size=6"),
        ({"timeout_s": 0}, "timeout_s=0: expected null or more than 0"),
        ({"inner": SecAggPlus(FedAvg(), FOUR)}, "inner=SecAggPlus: expected one that sees"),
        ({"inner": FedAvg(min_train_nodes=4)}, "inner.min_train_nodes=4: expected at most 3"),
        (
            {"inner": Anomaly(fedavg(1), rounds=9, detector="vae")},
            r"inner=Anomaly: expected a rule without a mod \(anomaly\)",
        ),
        (
            {"protocol": Protocol(4, max_weight=1, noise=Noise("skellam", bits=16))},
            "protocol.noise.mechanism=skellam: expected none",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, said):
    given = {"inner": Middle(fedavg(1)), "clients": 12} | settings
    with pytest.raises(ConfigError, match=said) as caught:
        grouped(**given)
    assert "\n" not in str(caught.value)
