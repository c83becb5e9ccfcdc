"""FLAME: the cluster, the clip and the noise, by hand and against a minority."""

import math

import numpy as np
import pytest

from fedmia.errors import ConfigError
from strategies.flame import Flame, largest_cluster
from tests.strategies.central_rounds import fed_avg, play
from tests.strategies.rounds_of import updates_of


def rule(**settings):
    return Flame(fed_avg(), **{"noise_factor": 0.0} | settings)


def test_the_cluster_is_clipped_to_the_median_norm_of_all():
    # norms 1, 2, 4, 10, 3: S = 3. The last points the other way; 1 + 2 + 3 + 3 over 4.
    found_by = rule()
    found = found_by.combine(updates_of([[1.0, 0], [2.0, 0], [4.0, 0], [10.0, 0], [-3.0, 0]]))
    np.testing.assert_allclose(found, [9 / 4, 0], rtol=1e-6)
    (flag,) = found_by.flags
    assert (flag.node_id, flag.round, flag.isolated) == (14, 1, True)
    assert flag.evidence == {"cosine distance to the cluster": pytest.approx(2.0)}


def test_a_majority_of_points_on_a_circle_is_kept():
    # at 0, 1, 2, 3 degrees, and two pairs apart: of eight at least five are kept, by their gaps
    angles = np.radians([0, 1, 2, 3, 4, 90, 91, 180])
    apart = 1 - np.cos(angles[:, None] - angles)
    np.testing.assert_array_equal(largest_cluster(apart), [1, 1, 1, 1, 1, 0, 0, 0])


@pytest.mark.parametrize("n", [2, 3, 10])
def test_clients_that_are_all_alike_are_all_kept(n):
    assert largest_cluster(np.zeros((n, n))).all()


@pytest.mark.parametrize("n", [3, 4, 9, 20])
def test_a_majority_is_kept_whatever_the_updates_are(n):
    rows = np.random.default_rng(n).normal(size=(n, 30))
    found = rule()
    found.combine(updates_of(rows))
    assert n - len(found.flags) >= n // 2 + 1


def test_noise_is_of_the_stated_size_and_follows_the_seed_and_round():
    rows = np.tile(np.full(4000, 0.5), (5, 1))
    norm = 0.5 * math.sqrt(4000)
    first = rule(noise_factor=0.1, seed=3).combine(updates_of(rows, 4))
    again = rule(noise_factor=0.1, seed=3).combine(updates_of(rows, 4))
    np.testing.assert_array_equal(first, again)
    assert np.std(first - 0.5) == pytest.approx(0.1 * norm, rel=0.05)
    other = rule(noise_factor=0.1, seed=3).combine(updates_of(rows, 5))
    assert abs(np.corrcoef(first - 0.5, other - 0.5)[0, 1]) < 0.06


def test_the_factor_comes_from_epsilon_and_delta():
    made = rule(noise_factor=None, epsilon=10.0, delta=1e-5)
    assert made.noise_factor == pytest.approx(math.sqrt(2 * math.log(125000)) / 10)
    assert not getattr(made, "adds_noise", False), "no account is kept of it"


def test_a_minority_that_colludes_is_left_out():
    def updates(client, number):
        rng = np.random.default_rng((client, number))
        return np.full(100, -50.0) if client < 4 else 1.0 + 0.3 * rng.normal(size=100)

    made = rule()
    rounds = play(made, updates, 10, 100, rounds=3)
    assert all((0.5 < r.change.mean() < 1.5) for r in rounds)
    caught = {f.node_id for f in made.flags if f.evidence["cosine distance to the cluster"] > 1}
    assert len(caught) == 4


def test_two_answers_give_their_median():
    made = rule()
    (only,) = play(made, lambda client, number: np.full(4, client), 3, 4, lost=lambda k, t: k == 2)
    np.testing.assert_allclose(only.change, 0.5)
    assert made.fallbacks == [(1, "2 updates, Flame needs 3: their median")]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"noise_factor": -0.1}, "noise_factor=-0.1: expected at least 0 and finite"),
        ({"epsilon": 1.0}, "epsilon=1.0: expected null beside noise_factor=0.0"),
        ({"noise_factor": None}, "epsilon=null: expected more than 0 and less than inf where"),
        (
            {"noise_factor": None, "epsilon": 1.0, "delta": 1.5},
            "delta=1.5: expected more than 0 and less than 1 where noise_factor=null",
        ),
    ],
)
def test_settings_out_of_range_are_refused(settings, line):
    with pytest.raises(ConfigError, match=f"^{line}"):
        rule(**settings)


def test_two_clients_have_no_majority():
    with pytest.raises(ConfigError, match=r"^inner.fraction_train=1.0: expected so much that at "):
        rule().check_asked(2)
    rule().check_asked(3)
