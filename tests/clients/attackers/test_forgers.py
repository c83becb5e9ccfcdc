"""What single attackers send, by hand."""

import math

import numpy as np
import pytest
from asking import Honest, answer, sent_by

from clients.attackers.gaussian_noise import GaussianNoise
from clients.attackers.scaling import Scaling
from clients.attackers.sign_flip import SignFlip
from fedmia.errors import ConfigError

UPDATES = np.tile([0.5, -0.25, 0.0, 1.0, 2.0, -4.0], (10, 1))


def test_a_flipped_update_points_back_as_many_times_as_long():
    found = sent_by(answer(SignFlip(scale=2.0), Honest(UPDATES), 8))
    assert found.tolist() == [-1.0, 0.5, 0.0, -2.0, -4.0, 8.0]


def test_a_scaled_update_points_the_same_way():
    found = sent_by(answer(Scaling(factor=4.0), Honest(UPDATES), 9))
    assert found.tolist() == [2.0, -1.0, 0.0, 4.0, 8.0, -16.0]


def test_attackers_in_one_another_compose():
    inner, outer = SignFlip(scale=1.0), Scaling(factor=2.0)
    honest = Honest(UPDATES)
    found = sent_by(answer(outer, WithMod(inner, honest), 9))
    assert found.tolist() == [-1.0, 0.5, 0.0, -2.0, -4.0, 8.0]


class WithMod:
    """A client behind a mod."""

    def __init__(self, mod, inner):
        self.mod, self.inner, self.params = mod, inner, inner.params

    def __call__(self, message, context):
        return self.mod(message, context, self.inner)


def test_noise_has_the_asked_deviation_and_nothing_of_the_update():
    params = {
        "w": np.zeros((2, 2), np.float32),
        "seen": np.array(0, np.int64),
        "b": np.zeros(50_000),
    }
    mod = GaussianNoise(std=0.5, seed=1)
    far = np.full((10, 50_004), 100.0)
    found = sent_by(answer(mod, Honest(far, params=params), 9), params)
    assert found.mean() == pytest.approx(0.0, abs=0.01)
    assert found.std() == pytest.approx(0.5, rel=0.02)


def test_noise_is_anothers_for_each_client_and_round_and_the_same_again():
    mod, honest = GaussianNoise(seed=1), Honest(UPDATES)
    drawn = {(k, t): tuple(sent_by(answer(mod, honest, k, t))) for k in (8, 9) for t in (1, 2)}
    assert len(set(drawn.values())) == 4
    again = sent_by(answer(GaussianNoise(seed=1), honest, 9, 2))
    assert tuple(again) == drawn[9, 2]
    assert tuple(sent_by(answer(GaussianNoise(seed=2), honest, 9, 2))) != drawn[9, 2]


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_factors_that_there_are_not_are_refused(value):
    for kind, key, allowed in (
        (SignFlip, "scale", "more than 0 and finite"),
        (Scaling, "factor", "more than 1 and finite"),
        (GaussianNoise, "std", "more than 0 and finite"),
    ):
        with pytest.raises(ConfigError) as caught:
            kind(**{key: value})
        assert str(caught.value) == f"{key}={value}: expected {allowed}"
