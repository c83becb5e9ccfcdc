"""What all strategies do that add noise at the server, shown on a small one of them."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
from central_rounds import clipped, fed_avg, flat, model_of, moved, play
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedMedian

from fedmia.arrays import to_params, to_record
from fedmia.errors import ConfigError
from fedmia.grid.serial import Serial
from fedmia.observe import ObservedGrid
from fedmia.privacy.budget import Budget
from fedmia.privacy.claim import Setting
from fedmia.privacy.cost import Cost, Neighbours
from strategies.central import Central
from strategies.linear import is_linear

CLIENTS, SIZE = 6, 9


@dataclass(frozen=True)
class PerRound(Cost):
    """A mechanism whose every round costs 1/z."""

    z: float
    neighbours: Neighbours = Neighbours.ADD_REMOVE
    delta: float = 1e-5
    method = "by hand"

    def epsilon(self, rounds):
        return rounds / self.z if self.z else math.inf

    def epsilon_rdp(self, rounds):
        return None

    def under(self, neighbours):
        return None


class Known(Central):
    """Asks whom it is told to ask; its noise in round t is t everywhere."""

    cohort = 4.0
    reasons = ("as told",)
    drawn = None

    def __init__(self, inner=None, clip=1.0, budget=None, clients=CLIENTS, **settings):
        budget = budget or Budget(2.0, None, 1e-5)
        inner = inner or fed_avg()
        common = {"rounds": 5, "clip_by": "server", "secure_noise": False, "seed": 0}
        common |= settings
        super().__init__(inner, clip, budget, PerRound, clients=clients, **common)

    def participants(self, server_round):
        drawn = range(self.clients) if self.drawn is None else self.drawn
        return np.isin(np.arange(self.clients), list(drawn))

    def noise(self, server_round, size):
        return np.full(size, server_round, np.float32)


QUIET = Budget(None, math.inf, 1e-5)


def update(client, number):
    return np.random.default_rng((client, number)).normal(size=SIZE) * (client + 1) / 4


def mean(clients, number=1, clip=1.0):
    return sum((clipped(update(c, number), clip) for c in clients), np.zeros(SIZE)) / 4


def test_the_change_is_the_sum_of_clipped_updates_and_noise_over_the_fixed_cohort():
    first, second = play(Known(clip=0.7), update, CLIENTS, SIZE, rounds=2)
    np.testing.assert_allclose(first.change, mean(range(6), 1, 0.7) + 0.7 / 4, atol=1e-5)
    np.testing.assert_allclose(second.change, mean(range(6), 2, 0.7) + 0.7 * 2 / 4, atol=1e-5)


def test_each_array_on_its_own():
    (found,) = play(Known(budget=QUIET, per_layer=True), update, CLIENTS, SIZE)
    each = 1 / math.sqrt(2)
    pieces = [[clipped(p, each) for p in np.split(update(c, 1), [4])] for c in range(6)]
    expected = sum(np.concatenate(piece) for piece in pieces) / 4
    np.testing.assert_allclose(found.change, expected, atol=1e-5)


def test_lost_clients_make_the_sum_smaller_and_the_noise_no_larger():
    (found,) = play(Known(), update, CLIENTS, SIZE, lost=lambda client, _: client in (0, 5))
    np.testing.assert_allclose(found.change, mean([1, 2, 3, 4]) + 1 / 4, atol=1e-5)


def test_only_those_drawn_are_asked():
    strategy = Known()
    strategy.drawn = (1, 4)
    (found,) = play(strategy, update, CLIENTS, SIZE)
    assert found.asked == [1, 4]
    np.testing.assert_allclose(found.change, mean([1, 4]) + 1 / 4, atol=1e-5)


def test_clients_that_are_away_later_leave_their_places_empty():
    strategy = Known()
    strategy.drawn = (1, 4)
    gone = {2: (0, 2), 3: (0, 1), 4: (1, 4)}
    found = play(
        strategy,
        update,
        CLIENTS,
        SIZE,
        5,
        away=lambda client, number: client in gone.get(number, ()),
    )
    asked = [[1, 4], [1, 4], [4], [], [1, 4]]
    assert [r.asked for r in found] == asked
    for number, (seen, drawn) in enumerate(zip(found, asked, strict=True), start=1):
        np.testing.assert_allclose(seen.change, mean(drawn, number) + number / 4, atol=1e-5)


def test_clients_that_come_later_are_never_asked():
    found = play(
        Known(clients=4), update, CLIENTS, SIZE, 3, away=lambda c, t: t == 1 and c in (0, 3)
    )
    assert [r.asked for r in found] == [[1, 2, 4, 5]] * 3


@pytest.mark.parametrize("there", [5, 7])
def test_all_clients_have_to_be_there_in_the_first_round(there):
    said = rf"^{there} clients in the first round: expected 6, as configured, since each has"
    with pytest.raises(RuntimeError, match=said):
        play(Known(), update, there, SIZE)


def test_a_round_to_which_nobody_is_connected_has_no_model_to_move():
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=0, min_available_nodes=0)
    with pytest.raises(RuntimeError, match=r"^round 2: no client is there$"):
        play(Known(inner), update, CLIENTS, SIZE, 2, away=lambda client, number: number == 2)


def test_where_nobody_is_drawn_or_answers_noise_is_released_all_the_same():
    strategy = Known()
    strategy.drawn = ()
    (nobody,) = play(strategy, update, CLIENTS, SIZE)
    assert nobody.asked == []
    np.testing.assert_allclose(nobody.change, 1 / 4, rtol=1e-6)
    (lost,) = play(Known(), update, CLIENTS, SIZE, lost=lambda *_: True)
    np.testing.assert_allclose(lost.change, 1 / 4, rtol=1e-6)


def test_updates_of_zero_leave_the_noise_alone():
    (found,) = play(Known(), lambda *_: np.zeros(SIZE), CLIENTS, SIZE)
    np.testing.assert_allclose(found.change, 1 / 4, rtol=1e-6)
    (quiet,) = play(Known(budget=QUIET), lambda *_: np.zeros(SIZE), CLIENTS, SIZE)
    np.testing.assert_array_equal(quiet.change, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_update_that_is_not_finite_counts_as_none(bad):
    def spoilt(client, number):
        return np.full(SIZE, bad) if client == 2 else update(client, number)

    (found,) = play(Known(), spoilt, CLIENTS, SIZE)
    np.testing.assert_allclose(found.change, mean([0, 1, 3, 4, 5]) + 1 / 4, atol=1e-5)


def test_counters_stay_as_they_are():
    model = {"steps": np.array([7]), **model_of(SIZE)}
    inner = fed_avg(Told)

    def main(grid):
        strategy = Known(inner)
        sent = list(strategy.configure_train(1, to_record(model), ConfigRecord(), grid))
        after = {"steps": np.array([8]), **moved(model_of(SIZE), update(0, 1))}
        content = RecordDict({"arrays": to_record(after)})
        strategy.aggregate_train(1, [Message(content, reply_to=sent[0])])

    Serial().run(ClientApp, CLIENTS, 0, main)
    given = to_params(inner.replies[0][0].content["arrays"])
    assert given["steps"].tolist() == [7]
    assert given["steps"].dtype == np.int64
    np.testing.assert_allclose(flat(given)[1:], mean([0]) + 1 / 4, atol=1e-5)


class Told(FedAvg):
    """Keeps what it is given."""

    linear = True

    def __init__(self, **settings):
        super().__init__(**settings)
        self.replies = []

    def aggregate_train(self, server_round, replies):
        self.replies.append(list(replies))
        return super().aggregate_train(server_round, self.replies[-1])


def test_the_wrapped_strategy_gets_one_reply_and_no_metrics_of_clients():
    inner = fed_avg(Told)
    (found,) = play(Known(inner), update, CLIENTS, SIZE)
    ((reply,),) = inner.replies
    assert dict(reply.content["metrics"]) == {"num-examples": 1}
    assert not found.metrics


def test_the_weight_has_the_name_that_the_wrapped_strategy_weighs_by():
    inner = fed_avg(Told, weighted_by_key="size")
    play(Known(inner), update, CLIENTS, SIZE)
    assert dict(inner.replies[0][0].content["metrics"]) == {"size": 1}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(FedAdam, {"eta": 0.01, "tau": 0.1}), (FedAvgM, {"server_momentum": 0.9})],
)
def test_a_rule_with_a_state_gets_what_fedavg_gets(kind, settings):
    wrapped = play(Known(fed_avg(kind, **settings)), update, CLIENTS, SIZE, rounds=3)

    def main(grid):
        strategy, model, changes = fed_avg(kind, **settings), model_of(SIZE), []
        for number in (1, 2, 3):
            sent = list(strategy.configure_train(number, to_record(model), ConfigRecord(), grid))
            after = moved(model, mean(range(6), number) + number / 4)
            content = {"arrays": to_record(after), "metrics": MetricRecord({"num-examples": 1})}
            replies = [Message(RecordDict(content), reply_to=sent[0])]
            arrays, _ = strategy.aggregate_train(number, replies)
            changes.append(flat(to_params(arrays)) - flat(model))
            model = to_params(arrays)
        return changes

    by_hand = Serial().run(ClientApp, CLIENTS, 0, main)
    for found, expected in zip(wrapped, by_hand, strict=True):
        np.testing.assert_allclose(found.change, expected, atol=1e-5)
        assert np.abs(expected).max() > 1e-4


def test_the_budget_ends_training_before_the_round_that_would_overspend(caplog):
    strategy = Known(budget=Budget(2.0, 1.5, 1e-5))
    found = play(strategy, update, CLIENTS, SIZE, rounds=5)
    assert [r.change is None for r in found] == [False, False, False, True, True]
    assert [len(r.asked) for r in found] == [6, 6, 6, 0, 0]
    number, reason = strategy.stopped
    assert number == 4
    assert reason == "ε=1.5 is spent, and another round would cost more than epsilon=1.5"
    assert sum("stops before round 4" in line for line in caplog.messages) == 1


def test_without_a_budget_training_goes_on():
    strategy = Known()
    found = play(strategy, update, CLIENTS, SIZE, rounds=7)
    assert all(r.change is not None for r in found)
    assert strategy.stopped is None


@pytest.mark.parametrize("weights", [(4, 2), (6,)])
def test_where_clients_clip_a_reply_counts_as_many_as_it_is_the_mean_of(weights):
    bounds = np.cumsum((0, *weights))
    groups = [range(a, b) for a, b in itertools.pairwise(bounds)]

    def mean_of(client, number):
        return np.mean([clipped(update(c, number), 1.0) for c in groups[client]], axis=0)

    strategy = Known(clip_by="clients")
    strategy.drawn = range(len(weights))
    (found,) = play(
        strategy,
        mean_of,
        CLIENTS,
        SIZE,
        metrics=lambda client: {"num-examples": weights[client]},
    )
    np.testing.assert_allclose(found.change, mean(range(6)) + 1 / 4, atol=1e-5)


def test_where_clients_clip_the_server_leaves_updates_as_they_are():
    strategy = Known(clip_by="clients", budget=QUIET)
    (found,) = play(strategy, lambda *_: np.full(SIZE, 5.0), CLIENTS, SIZE)
    np.testing.assert_allclose(found.change, 6 * 5 / 4, rtol=1e-6)


def test_a_whole_training_goes_on_where_all_replies_are_errors():
    class Failing(Known):
        def aggregate_train(self, server_round, replies):
            failed = [Message(Error(0, "lost"), reply_to=r) for r in replies if r.has_content()]
            return super().aggregate_train(server_round, failed)

    (found,) = play(Failing(), update, CLIENTS, SIZE)
    np.testing.assert_allclose(found.change, 1 / 4, rtol=1e-6)


def test_flower_lets_a_round_without_clients_release_its_noise():
    class Empty(Known):
        drawn = ()

    seen = []

    def main(grid):
        observed = ObservedGrid(grid, seen.append)
        model = to_record(model_of(SIZE))
        return Empty().start(observed, model, num_rounds=3).arrays

    after = Serial().run(ClientApp, CLIENTS, 0, main)
    np.testing.assert_allclose(flat(to_params(after)), (1 + 2 + 3) / 4, rtol=1e-6)
    assert seen == []


def test_it_is_linear_and_says_that_it_adds_noise():
    strategy = Known()
    assert is_linear(strategy)
    assert strategy.adds_noise


def test_it_wraps_itself_for_a_strategy_that_hides_updates_alone():
    assert Known(Known(budget=QUIET), budget=QUIET).inner.inner.fraction_train == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"inner": FedMedian()}, "inner=FedMedian: expected a rule that is linear in the updates"),
        (
            {"inner": FedAvg(fraction_train=0.5)},
            "inner.fraction_train=0.5: expected 1: the clients are drawn outside of it",
        ),
        ({"clip": 0}, "clip=0: expected more than 0 and finite"),
        ({"clip": -1.0}, "clip=-1.0: expected more than 0 and finite"),
        ({"clip": math.inf}, "clip=inf: expected more than 0 and finite"),
        ({"rounds": 0}, "rounds=0: expected at least 1"),
        ({"clients": 0}, "clients=0: expected at least 1"),
        ({"clip_by": "nobody"}, "clip_by=nobody: expected one of server, clients"),
        (
            {"budget": Budget(2.0, 0.1, 1e-5)},
            "epsilon=0.1: expected at least 0.5, what one round costs with noise_multiplier=2.0",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(settings, said):
    with pytest.raises(ConfigError) as error:
        Known(**settings)
    assert str(error.value) == said


def test_a_large_delta_and_open_evaluations_are_warned_of(caplog):
    strategy = Known(FedAvg(fraction_evaluate=0.5), budget=Budget(2.0, None, 0.2))
    assert strategy.warnings == [
        "delta=0.2 is not below 1/clients=0.1667",
        "metrics of evaluations have no noise (inner.fraction_evaluate=0.5)",
    ]
    strategy.summary()
    assert all(warning in caplog.messages for warning in strategy.warnings)
    assert Known().warnings == []


def test_evaluation_is_the_wrapped_strategys():
    def main(grid):
        strategy = Known(FedAvg(fraction_evaluate=1.0, min_available_nodes=1))
        sent = list(strategy.configure_evaluate(1, ArrayRecord(), ConfigRecord(), grid))
        told = MetricRecord({"num-examples": 1, "accuracy": 0.5})
        replies = [Message(RecordDict({"metrics": told}), reply_to=m) for m in sent]
        return len(sent), strategy.aggregate_evaluate(1, replies)["accuracy"]

    asked, accuracy = Serial().run(ClientApp, CLIENTS, 0, main)
    assert asked == CLIENTS
    assert accuracy == pytest.approx(0.5)


def test_the_promise_is_to_clients_and_never_against_the_server():
    (claim,) = Known().claims(Setting((5,) * CLIENTS, 5))
    assert claim.unit == "client"
    assert "server" not in claim.holds_against
    assert set(claim.holds_against) == {"aggregate", "participant", "final_model"}
    assert claim.account.epsilon(4) == 2.0
    assert not claim.secure
    assert not claim.per_participation
    said = " / ".join(claim.reasons)
    assert "the server sees every update before it adds the noise" in said
    assert "divided by 4, fixed beforehand" in said
    assert "as told" in said
    assert "secure_noise=false" in said
    assert "clients clip" not in said


def test_the_promise_names_what_it_rests_on():
    strategy = Known(clip_by="clients", secure_noise=True)
    (claim,) = strategy.claims(Setting((5,) * CLIENTS, 5, hidden="secagg_plus"))
    said = " / ".join(claim.reasons)
    assert claim.secure
    assert "the server sees only their sum (secagg_plus) before it adds the noise" in said
    assert "clients clip their own updates: one that does not voids the promise" in said
    assert "secure_noise=false" not in said


def test_no_noise_promises_nothing():
    (claim,) = Known(budget=QUIET).claims(Setting((5,) * CLIENTS, 5))
    assert claim.account.epsilon(1) == math.inf
