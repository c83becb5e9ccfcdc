"""Krum and Multi-Krum against hand-worked scores and a naive twin."""

import numpy as np
import pytest

from fedmia.errors import ConfigError
from strategies.krum import Krum, scores
from tests.strategies.central_rounds import fed_avg, play
from tests.strategies.rounds_of import updates_of


def naive(rows, f, m):
    rows = np.asarray(rows, np.float64)
    n = len(rows)
    scored = []
    for i in range(n):
        apart = sorted(((rows[i] - rows[j]) ** 2).sum() for j in range(n) if j != i)
        scored.append(sum(apart[: n - f - 2]))
    return rows[np.argsort(scored, kind="stable")[:m]].mean(axis=0)


def test_scores_on_a_line_by_hand():
    # n=5, f=1: two neighbours. 0: 1+4; 1: 1+1; 2: 1+4 (1 and 4 or 0); 4: 4+9; 9: 25+49.
    points = np.array([0.0, 1.0, 2.0, 4.0, 9.0])
    distances = (points[:, None] - points) ** 2
    np.testing.assert_allclose(scores(distances, 1), [5, 2, 5, 13, 74])


def test_krum_is_the_update_of_the_smallest_score():
    rule = Krum(fed_avg(), byzantine=1)
    found = rule.combine(updates_of([[0.0], [1.0], [2.0], [4.0], [9.0]]))
    np.testing.assert_allclose(found, [1.0])


def test_multi_krum_averages_all_but_f_and_leaves_the_outlier_out():
    rule = Krum(fed_avg(), byzantine=1, selected=None)
    found = rule.combine(updates_of([[0.0], [1.0], [2.0], [4.0], [9.0]]))
    np.testing.assert_allclose(found, [7 / 4])


@pytest.mark.parametrize(("f", "m"), [(0, 1), (1, 3), (2, 1), (3, 6)])
def test_as_a_naive_twin(f, m):
    rows = np.random.default_rng(f).normal(size=(9, 40))
    found = Krum(fed_avg(), byzantine=f, selected=m).combine(updates_of(rows))
    np.testing.assert_allclose(found, naive(rows, f, m), rtol=1e-5, atol=1e-6)


def test_numbers_of_examples_do_not_weigh():
    rows = [[0.0], [1.0], [2.0], [4.0], [9.0]]
    rule = Krum(fed_avg(), byzantine=1, selected=2)
    found = rule.combine(updates_of(rows, examples=[1, 1000, 1, 1, 1]))
    np.testing.assert_allclose(found, [0.5])


def test_two_colluders_do_not_choose_the_model():
    rows = np.random.default_rng(1).normal(size=(7, 20))
    rows[[2, 5]] = 1e9
    (only,) = play(Krum(fed_avg(), 2), lambda client, number: rows[client], 7, 20)
    assert np.abs(only.change).max() < 5


def test_too_few_answers_give_the_median_and_say_so():
    rule = Krum(fed_avg(), byzantine=2)
    (only,) = play(rule, lambda client, number: np.full(4, client), 7, 4, lost=lambda k, t: k > 4)
    np.testing.assert_allclose(only.change, 2.0)
    assert rule.fallbacks == [(1, "5 updates, Krum needs 7: their median")]


@pytest.mark.parametrize(
    ("settings", "asked", "line"),
    [
        ({"byzantine": 3}, 8, r"byzantine=3: expected at most 2: Krum needs 2·byzantine \+ 3"),
        ({"byzantine": 2, "selected": 9}, 10, "selected=9: expected at most 8, the clients asked"),
    ],
)
def test_settings_that_a_round_cannot_serve_are_refused(settings, asked, line):
    with pytest.raises(ConfigError, match=line):
        Krum(fed_avg(), **settings).check_asked(asked)
    Krum(fed_avg(), byzantine=2, selected=8).check_asked(10)


def test_negative_numbers_are_refused():
    with pytest.raises(ConfigError, match="byzantine=-1: expected at least 0"):
        Krum(fed_avg(), byzantine=-1)
    with pytest.raises(ConfigError, match="selected=0: expected null or at least 1"):
        Krum(fed_avg(), selected=0)
