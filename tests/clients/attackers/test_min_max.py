"""Min-Max goes as far as its bound allows, and no further."""

import numpy as np
import pytest
from asking import Honest, answer, sent_by
from scipy.optimize import brentq

from clients.attackers.min_max import MinMax
from fedmia.errors import ConfigError

DIRECTIONS = ["std", "unit", "sign"]


def furthest(sent, updates):
    return np.linalg.norm(updates - sent, axis=1).max()


def widest(updates):
    return max(np.linalg.norm(a - b) for a in updates for b in updates)


def test_two_updates_on_a_line_by_hand():
    """(0, 1) and (0, 3): the mean is 2, the deviation 1 and the bound 2; from 3 it is 1."""
    updates = np.array([[0.0, 1.0], [0.0, 3.0]])
    for direction in DIRECTIONS:
        found = MinMax(direction=direction).agree(updates)
        assert found == pytest.approx([0.0, 1.0], abs=1e-5)


def test_a_right_angle_by_hand():
    """(2, 0) and (0, 2): the bound is √8, the way from (1, 1) along (−1, −1)/√2 is √6."""
    found = MinMax(direction="unit").agree(np.array([[2.0, 0.0], [0.0, 2.0]]))
    assert found == pytest.approx(np.full(2, 1 - np.sqrt(3)), abs=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("seed", range(5))
def test_the_bound_is_reached_and_never_exceeded(direction, seed):
    rng = np.random.default_rng(seed)
    updates = rng.normal(size=(2 + 3 * seed, 400)) * 10.0 ** (seed - 2) + rng.normal(size=400)
    sent = MinMax(direction=direction).agree(updates)
    bound = widest(updates)
    assert furthest(sent, updates) <= bound
    assert furthest(sent, updates) == pytest.approx(bound, rel=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_step_is_what_a_search_for_it_finds(direction):
    updates = np.random.default_rng(7).normal(size=(6, 50)) + 0.3
    mean = updates.mean(axis=0)
    step = {"std": -updates.std(axis=0), "unit": -mean / np.linalg.norm(mean)}
    step |= {"sign": -np.sign(mean)}
    slack = lambda gamma: widest(updates) - furthest(mean + gamma * step[direction], updates)  # noqa: E731
    gamma = brentq(slack, 0.0, 1e3, xtol=1e-10)
    wanted = mean + gamma * step[direction]
    assert MinMax(direction=direction).agree(updates) == pytest.approx(wanted, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_equal_updates_are_sent_as_they_are(direction):
    updates = np.tile([1.0, -2.0, 0.0], (3, 1))
    assert MinMax(direction=direction).agree(updates).tolist() == [1.0, -2.0, 0.0]


def test_updates_that_cancel_out_leave_no_direction():
    assert MinMax(direction="unit").agree(np.array([[1.0], [-1.0]])).tolist() == [0.0]


def test_what_leaves_the_client_keeps_the_bound_up_to_the_models_rounding():
    updates = np.random.default_rng(3).normal(size=(10, 6))
    for knowledge, known in (("colluders", updates[8:]), ("all", updates[:8])):
        found = sent_by(answer(MinMax(knowledge=knowledge), Honest(updates), 9))
        assert furthest(found, known) <= widest(known) + 1e-6
        assert furthest(found, known) == pytest.approx(widest(known), rel=1e-5)


def test_directions_that_there_are_not_are_refused():
    with pytest.raises(ConfigError, match=r"^direction=up: expected std, unit or sign$"):
        MinMax(direction="up")
