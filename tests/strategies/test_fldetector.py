"""FLDetector: what is expected by hand, and clients that do not follow their own history."""

import numpy as np
import pytest

from fedmia.errors import ConfigError
from strategies.fldetector import FLDetector
from tests.strategies.central_rounds import fed_avg, play
from tests.strategies.rounds_of import updates_of

SIZE = 20


def rule(**settings):
    return FLDetector(fed_avg(), **settings)


def quadratic(bad=(), start=1, noise=0.01, seed=0):
    """Clients that step down bowls of their own; ``bad`` ones climb, at random, from ``start``."""
    centres = np.random.default_rng(seed).normal(size=(12, SIZE))
    curvature = np.linspace(0.1, 0.5, SIZE)
    models = [np.zeros(SIZE)]

    def updates(client, number):
        rng = np.random.default_rng((seed, client, number))
        honest = -curvature * (models[-1] - centres[client]) + noise * rng.normal(size=SIZE)
        return -3 * honest * rng.random() if client in bad and number >= start else honest

    return updates, models


def played(strategy, updates, models, clients=10, rounds=12, lost=lambda client, number: False):
    """Play rounds one by one, so that clients see the model."""
    for number in range(1, rounds + 1):
        asked = strategy.admitted(number, range(clients))
        here = [k for k in asked if not lost(k, number)]
        rows = [updates(k, number) for k in here]
        made = updates_of(rows, number, nodes=here, model=models[-1])
        models.append(models[-1] + strategy.combine(made))
    return strategy


def test_a_prediction_by_hand():
    strategy = rule(window=3)
    # Bowls of curvature 0.5 around 2 and 4: updates −0.5·(w − c).
    w = 0.0
    for number in (1, 2):
        rows = [[-0.5 * (w - 2.0)], [-0.5 * (w - 4.0)], [-0.5 * (w - 6.0)]]
        made = updates_of(rows, number, model=[w])
        assert strategy.scores(made) == {}
        w += float(strategy.combine(made)[0])
    assert w == 3.0
    # H = −0.5, w moved from 2 to 3: expected −0.5·1 more than (0, 1, 2); the last one sends 3.5.
    made = updates_of([[-0.5], [0.5 - 1.0], [3.5]], 3, model=[w])
    found = strategy.scores(made)
    np.testing.assert_allclose([found[k] for k in (10, 11, 12)], [0, 1.0, 2.0], atol=1e-6)


def test_clients_that_do_not_follow_their_history_are_isolated():
    updates, models = quadratic(bad=(2, 7))
    strategy = played(rule(window=4), updates, models, rounds=6)
    assert strategy.isolated == {2, 7}
    assert [(f.round, f.node_id, f.isolated) for f in strategy.flags] == [
        (6, 2, True),
        (6, 7, True),
    ]
    evidence = strategy.flags[0].evidence
    assert evidence["score"] > 2 * evidence["others"]


def test_the_round_of_the_decision_leaves_them_out():
    updates, models = quadratic(bad=(2,))
    strategy = played(rule(window=4), updates, models, rounds=5)
    rows = [updates(k, 6) for k in range(10)]
    change = strategy.combine(updates_of(rows, 6, nodes=range(10), model=models[-1]))
    assert strategy.isolated == {2}
    honest = np.mean([row for k, row in enumerate(rows) if k != 2], axis=0)
    np.testing.assert_allclose(change, honest, rtol=1e-5, atol=1e-6)


def test_one_who_turns_bad_late_is_isolated_late():
    updates, models = quadratic(bad=(4,), start=9)
    strategy = played(rule(window=3), updates, models, rounds=8)
    assert 4 not in strategy.isolated
    updates, models = quadratic(bad=(4,), start=9)
    strategy = played(rule(window=3), updates, models, rounds=16)
    assert 4 in strategy.isolated
    assert min(f.round for f in strategy.flags if f.node_id == 4) >= 9


def test_a_client_that_was_away_is_expected_from_where_it_left():
    strategy, w = rule(window=3), 0.0

    def rows(number):
        found = {10: -0.5 * (w - 2.0), 11: -0.5 * (w - 4.0), 12: -0.5 * (w - 9.0)}
        if number == 3:
            del found[12]
        if number == 4:
            found[11] += 1.0
        return found

    for number in range(1, 5):
        sent = rows(number)
        made = updates_of([[u] for u in sent.values()], number, list(sent), model=[w])
        found = strategy.scores(made)
        w += float(strategy.combine(made)[0])
    # H = −0.5 exactly: client 12, last seen in round 2, and client 10 do what is expected.
    np.testing.assert_allclose([found[k] for k in (10, 11, 12)], [0, 3, 0], atol=1e-5)


def test_a_client_away_for_longer_than_the_window_starts_anew():
    updates, models = quadratic()
    strategy = played(rule(window=2), updates, models, rounds=6, lost=lambda k, t: k == 3 and t > 1)
    rows = [updates(k, 7) for k in range(10)]
    found = strategy.scores(updates_of(rows, 7, nodes=range(10), model=models[-1]))
    assert found.keys() == set(range(10)) - {3}


def test_a_flower_round_does_not_ask_those_isolated():
    rng = np.random.default_rng(0)
    drift = rng.normal(size=(12, SIZE))

    def updates(client, number):
        wild = np.random.default_rng((client, number)).normal(size=SIZE)
        return 5 * wild if client == 1 else drift[client] + 0.05 * wild

    strategy = rule(window=3)
    rounds = play(strategy, updates, 8, SIZE, rounds=7)
    assert 1 in rounds[4].asked
    assert 1 not in rounds[5].asked
    assert strategy.flags[0].round == 5


def test_state_is_bounded_by_the_window():
    updates, models = quadratic()
    strategy = played(rule(window=3), updates, models, rounds=12)
    assert (len(strategy._models), len(strategy._changes)) == (3, 3)


@pytest.mark.parametrize(("key", "value"), [("window", 0), ("references", 1)])
def test_settings_out_of_range_are_refused(key, value):
    with pytest.raises(ConfigError, match=f"^{key}={value}: expected at least"):
        rule(**{key: value})


def test_two_clients_cannot_be_told_apart():
    with pytest.raises(ConfigError, match=r"^inner.fraction_train=1.0: expected so much that at "):
        rule().check_asked(2)
    rule().check_asked(3)
