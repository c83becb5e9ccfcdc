"""What every robust rule does around its arithmetic: reading, rejecting, falling back, skipping."""

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvgM, FedMedian

from fedmia.errors import ConfigError
from strategies.robust import Robust
from tests.strategies.central_rounds import fed_avg, play

SIZE = 6


class Mean(Robust):
    fewest = 3

    def combine(self, updates):
        self.seen = updates
        return updates.matrix.mean(axis=0)


def given(rows):
    return lambda client, number: np.asarray(rows[client], np.float64)


def test_the_rules_update_moves_the_model_and_examples_do_not_weigh():
    rows = np.arange(4 * SIZE).reshape(4, SIZE) / 10
    strategy = Mean(fed_avg())
    counts = [1, 1000, 5, 9]
    (only,) = play(strategy, given(rows), 4, SIZE, metrics=lambda k: {"num-examples": counts[k]})
    np.testing.assert_allclose(only.change, rows.mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(strategy.seen.examples, counts)
    np.testing.assert_allclose(strategy.seen.matrix, rows, rtol=1e-6)


def test_the_wrapped_strategy_makes_the_new_model():
    rows = np.ones((3, SIZE))
    strategy = Mean(fed_avg(FedAvgM, server_learning_rate=0.5, server_momentum=0.0))
    (only,) = play(strategy, given(rows), 3, SIZE)
    np.testing.assert_allclose(only.change, 0.5)


@pytest.mark.parametrize(
    ("bad", "said"), [(np.nan, "not finite"), (np.inf, "not finite"), (2e6, "too large")]
)
def test_an_update_that_is_none_is_rejected_and_its_client_flagged(bad, said):
    rows = np.ones((4, SIZE))
    rows[2, 3] = bad
    strategy = Mean(fed_avg())
    (only,) = play(strategy, given(rows), 4, SIZE)
    np.testing.assert_allclose(only.change, 1.0)
    (flag,) = strategy.flags
    assert (flag.round, flag.isolated) == (1, True)
    assert said in flag.reason
    assert flag.node_id not in strategy.seen.nodes


def test_too_few_updates_give_their_median_and_say_so():
    rows = np.array([[0.0] * SIZE, [1.0] * SIZE, [5.0] * SIZE])
    strategy = Mean(fed_avg())
    (only,) = play(strategy, given(rows), 3, SIZE, lost=lambda client, number: client == 2)
    np.testing.assert_allclose(only.change, 0.5)
    assert strategy.fallbacks == [(1, "2 updates, Mean needs 3: their median")]


def test_a_round_of_rejected_updates_leaves_the_model_and_is_abandoned():
    strategy = Mean(fed_avg())
    (only,) = play(strategy, given(np.full((3, SIZE), np.nan)), 3, SIZE)
    assert only.change is None
    assert strategy.abandoned == [(1, "no client sent an update that counts")]


def test_a_round_of_isolated_clients_asks_nobody_and_is_abandoned():
    class Nobody(Mean):
        def admitted(self, server_round, nodes):
            return []

    strategy = Nobody(fed_avg())
    (only,) = play(strategy, given(np.ones((3, SIZE))), 3, SIZE)
    assert (only.asked, only.change) == ([], None)
    assert strategy.abandoned == [(1, "all 3 clients are isolated")]


def test_only_a_linear_strategy_without_noise_can_be_wrapped():
    with pytest.raises(ConfigError, match="inner=FedMedian: expected a rule that is linear"):
        Mean(fed_avg(FedMedian))
