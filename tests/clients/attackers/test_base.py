"""Who attacks, from when, and that everybody else answers as if there were no attacker."""

from dataclasses import dataclass

import numpy as np
import pytest
from asking import Honest, answer, ask, context, sent_by
from flwr.app import Error, Message

from clients.attackers.alie import Alie
from clients.attackers.base import Forger
from clients.attackers.gaussian_noise import GaussianNoise
from clients.attackers.label_flip import LabelFlip
from clients.attackers.min_max import MinMax
from clients.attackers.scaling import Scaling
from clients.attackers.sign_flip import SignFlip
from fedmia.arrays import to_params
from fedmia.errors import ConfigError

ATTACKERS = [Alie, GaussianNoise, LabelFlip, MinMax, Scaling, SignFlip]
UPDATES = np.random.default_rng(0).normal(size=(10, 6))


@dataclass(frozen=True, kw_only=True)
class Ones(Forger):
    def forge(self, update, scene):
        return np.full(update.size, scene.client + 10.0 * scene.server_round)


def bytes_of(reply):
    return {k: v.tobytes() for k, v in to_params(reply.content["arrays"]).items()}


@pytest.mark.parametrize(
    ("who", "wanted"),
    [
        ({}, {8, 9}),
        ({"fraction": 0.3}, {7, 8, 9}),
        ({"fraction": 0.25}, {7, 8, 9}),
        ({"fraction": 0.0}, set()),
        ({"fraction": 0.9}, set(range(1, 10))),
        ({"fraction": None, "clients": [0, 4]}, {0, 4}),
    ],
)
def test_the_last_ones_or_the_named_ones_attack(who, wanted):
    assert SignFlip(**who).attackers(10) == wanted


def test_of_four_clients_a_fifth_is_one():
    assert SignFlip(num_clients=4).attackers(4) == {3}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"clients": [1]}, "clients=[1]: expected [] beside fraction=0.2, or fraction=null"),
        ({"fraction": None}, "clients=[]: expected numbers of clients beside fraction=null"),
        (
            {"fraction": None, "clients": [10]},
            "clients=[10]: expected numbers from 0 to 9 (num_clients=10)",
        ),
        (
            {"fraction": None, "clients": [-1]},
            "clients=[-1]: expected numbers from 0 to 9 (num_clients=10)",
        ),
        ({"fraction": None, "clients": [1, 1]}, "clients=[1, 1]: expected each client once"),
        (
            {"fraction": None, "clients": [0, 1], "num_clients": 2},
            "clients=[0, 1]: expected at most 1 of them, so that one of num_clients=2 is honest",
        ),
        ({"fraction": 1.0}, "fraction=1.0: expected null or in [0, 1)"),
        ({"fraction": -0.1}, "fraction=-0.1: expected null or in [0, 1)"),
        (
            {"fraction": 0.04},
            "fraction=0.04: expected 0, or so much that of num_clients=10 at least one attacks "
            "and one does not",
        ),
        (
            {"fraction": 0.97},
            "fraction=0.97: expected 0, or so much that of num_clients=10 at least one attacks "
            "and one does not",
        ),
        ({"from_round": 0}, "from_round=0: expected at least 1"),
    ],
)
def test_attackers_that_there_cannot_be_are_refused(settings, line):
    with pytest.raises(ConfigError) as caught:
        SignFlip(**settings)
    assert str(caught.value) == line


@pytest.mark.parametrize("kind", ATTACKERS)
def test_honest_clients_answer_the_same_bytes_and_train_once(kind):
    alone, under = Honest(UPDATES), Honest(UPDATES)
    for client in range(8):
        plain = alone(ask(), context(client))
        reply = answer(kind(), under, client)
        assert bytes_of(reply) == bytes_of(plain)
        assert reply.content["metrics"] == plain.content["metrics"]
    assert under.trained == alone.trained


@pytest.mark.parametrize("kind", ATTACKERS)
def test_before_the_first_round_of_attack_and_beside_training_all_are_honest(kind):
    mod, honest = kind(from_round=3), Honest(UPDATES)
    assert np.array_equal(sent_by(answer(mod, honest, 9, 2)), sent_by(answer(mod, honest, 9, 1)))
    assert honest.trained == [9, 9]
    asked = ask(kind="query.partition", server_round=5)
    assert mod(asked, context(9), lambda m, c: m) is asked


def test_a_forged_update_takes_the_place_of_the_honest_one_and_of_nothing_else():
    reply = answer(Ones(), Honest(UPDATES), 9, server_round=2)
    assert sent_by(reply) == pytest.approx(np.full(6, 29.0), rel=1e-6)
    params = to_params(reply.content["arrays"])
    assert [(k, v.dtype.str) for k, v in params.items()] == [
        ("w", "<f4"),
        ("seen", "<i8"),
        ("b", "<f8"),
    ]
    assert params["seen"] == 12  # a counter is not forged: as the honest client has it
    assert dict(reply.content["metrics"]) == {"num-examples": 29, "train-loss": 0.25}


def test_errors_of_an_attackers_own_training_pass():
    def fails(message, context):
        return Message(Error(5, "away"), reply_to=message)

    assert Ones()(ask(), context(9), fails).error.reason == "away"
