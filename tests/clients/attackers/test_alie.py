"""ALIE's z by hand, and what its clients send."""

import math

import numpy as np
import pytest
from asking import Honest, answer, sent_by

from clients.attackers.alie import Alie, largest_z
from fedmia.errors import ConfigError

UPDATES = np.random.default_rng(0).normal(size=(10, 6))


@pytest.mark.parametrize(
    ("clients", "attackers", "wanted"),
    [
        (10, 2, 0.0),  # s = 6 - 2 = 4, (8 - 4) / 8 = 1/2
        (10, 1, -0.139710),  # s = 5, 4/9
        (10, 3, 0.180012),  # s = 3, 4/7
        (10, 4, 0.430727),  # s = 2, 2/3
        (50, 24, 1.426077),  # s = 26 - 24 = 2, (26 - 2) / 26
        (51, 24, 1.446104),  # s = 26 - 24 = 2, 25/27
        (10, 6, math.inf),  # a majority needs nobody else
        (2, 1, -math.inf),
    ],
)
def test_the_papers_z_by_hand(clients, attackers, wanted):
    assert largest_z(clients, attackers) == pytest.approx(wanted, abs=1e-6)


def test_two_colluders_send_the_mean_less_z_deviations():
    updates = np.zeros((10, 6))
    updates[8], updates[9] = [1, 2, 3, 4, 5, 6], [3, 2, 1, 0, 5, -6]
    wanted = [2 - 1.5, 2, 2 - 1.5, 2 - 3, 5, 0 - 9]
    for client in (8, 9):
        found = sent_by(answer(Alie(z=1.5), Honest(updates), client))
        assert found == pytest.approx(wanted, abs=1e-6)


def test_who_knows_all_uses_the_updates_of_the_honest_alone():
    mod = Alie(z=2.0, knowledge="all")
    honest = UPDATES[:8]
    wanted = honest.mean(axis=0) - 2 * honest.std(axis=0)
    found = sent_by(answer(mod, Honest(UPDATES), 9))
    assert found == pytest.approx(wanted, abs=1e-6)


def test_without_a_number_the_papers_z_is_used():
    mod = Alie(z=None, fraction=0.4)
    known = UPDATES[6:]
    wanted = known.mean(axis=0) - 0.430727 * known.std(axis=0)
    assert sent_by(answer(mod, Honest(UPDATES), 6)) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"z": 0.0}, "z=0.0: expected null, or more than 0 and finite"),
        ({"z": math.inf}, "z=inf: expected null, or more than 0 and finite"),
        (
            {"z": None},
            "z=null: expected a number: with 2 attackers of 10 clients z_max is 0",
        ),
        (
            {"z": None, "fraction": 0.6},
            "z=null: expected a number: with 6 attackers of 10 clients z_max is inf",
        ),
        (
            {"fraction": 0.1},
            "knowledge=colluders: expected all, or at least 2 attackers, whose updates differ; "
            "there is 1",
        ),
        ({"knowledge": "some"}, "knowledge=some: expected colluders or all"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings, line):
    with pytest.raises(ConfigError) as caught:
        Alie(**settings)
    assert str(caught.value) == line


def test_nobody_attacking_is_no_mistake():
    assert Alie(fraction=0.0, z=None).attackers(10) == frozenset()
