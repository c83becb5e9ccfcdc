"""Trajectories: what the network is given, and that it finds what a single loss does not."""

import numpy as np
import pytest
import torch
from reference_world import CLIENTS, NODES, ROUNDS, World

from fedmia.attacks.base import NotApplicableError
from fedmia.attacks.loss_trajectory import LossTrajectory, _network
from fedmia.errors import ConfigError


@pytest.fixture(scope="module")
def world():
    return World(spread=1.0)


def test_a_trajectory_is_the_targets_series_between_its_first_and_last_round():
    present = np.ones((ROUNDS, CLIENTS), bool)
    present[[0, 2], 1] = False
    seen = World(present=present).view
    series = seen.signals.logit_gap_local[[1, 3, 4], 1]

    given = LossTrajectory(points=5).trajectories(seen, NODES[1])

    middle = [series[0], (series[0] + series[1]) / 2, series[1], (series[1] + series[2]) / 2]
    assert given == pytest.approx(np.array([*middle, series[2]]).T, abs=1e-12)


def test_global_trajectories_end_with_the_last_model(world):
    given = LossTrajectory("global", "loss", points=ROUNDS + 1).trajectories(world.view, None)

    assert given == pytest.approx(world.view.signals.loss_global.T, abs=1e-12)


def test_the_score_is_the_networks_log_odds(world):
    attack, knowledge, seen = LossTrajectory(epochs=2), world.knowledge, world.view
    network = _network(attack, knowledge.shadows, knowledge.seed)
    given = torch.from_numpy(attack.trajectories(seen, NODES[2])).float()

    scores = attack(seen, NODES[2], world.candidates, knowledge)

    assert scores == pytest.approx(network(given).detach().numpy(), abs=1e-6)
    assert (scores < 0).any()
    assert (scores > 0).any()


def test_one_network_serves_all_targets(world):
    attack, shadows = LossTrajectory(epochs=2), world.knowledge.shadows
    network = _network(attack, shadows, 0)

    assert _network(attack, shadows, 0) is network
    assert _network(attack, shadows, 1) is not network
    assert _network(LossTrajectory("global", epochs=2), shadows, 0) is not network


@pytest.mark.parametrize("measure", ["loss", "logit_gap"])
def test_a_trajectory_says_more_than_its_last_loss(world, measure):
    scores = world.score(LossTrajectory(measure=measure, epochs=10))
    last = -world.view.signals.loss_local[-1, 0]

    assert world.auc(scores) > world.auc(last) + 0.03


def test_a_target_that_took_part_in_no_round_cannot_be_asked_about():
    present = np.ones((ROUNDS, CLIENTS), bool)
    present[:, 0] = False

    with pytest.raises(NotApplicableError, match=r"^needs a round in which the target took part"):
        World(present=present).score(LossTrajectory())


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"model": "other"}, "model=other: expected global or local"),
        ({"measure": "cosine"}, "measure=cosine: expected one of loss, logit_gap"),
        ({"points": 1}, "points=1: expected at least 2"),
        ({"epochs": 0}, "epochs=0: expected at least 1"),
    ],
)
def test_settings_that_do_not_exist_are_refused(settings, line):
    with pytest.raises(ConfigError) as refusal:
        LossTrajectory(**settings)
    assert str(refusal.value) == line
