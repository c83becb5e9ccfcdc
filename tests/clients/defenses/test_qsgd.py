"""QSGD: levels of the norm, the mean of many roundings is the update, as noisy as is proved."""

import numpy as np
import pytest
from changing import context, normal, refusal, sent, vector

from clients.defenses.qsgd import Qsgd


def test_levels_by_hand():
    found, size = sent(Qsgd(levels=5, bucket=2), vector(3.0, -4.0, 0.0, 2.0))
    assert found["w"].tolist() == pytest.approx([3.0, -4.0, 0.0, 2.0])  # 3/5, 4/5; 0, 1
    assert size == 4 * 2 + 4  # eight integers of four bits


def test_a_coordinate_between_two_levels_goes_to_either():
    values = {
        float(sent(Qsgd(levels=1, bucket=2), vector(0.6, 0.8), server_round=t)[0]["w"][0])
        for t in range(30)
    }
    assert values == {0.0, 1.0}


@pytest.mark.parametrize("s", [1, 4])
def test_the_mean_of_many_rounds_is_the_update_and_its_variance_is_bounded(s):
    delta, rounds = normal(w=24)["w"], 4000
    mod, rng = Qsgd(s, 24), np.random.default_rng(0)
    found = np.array([mod.perturbed({"w": delta}, rng)["w"] for _ in range(rounds)])
    norm = float(np.linalg.norm(delta))
    within = 4.5 * norm / (2 * s) / rounds**0.5  # between levels norm/s apart
    assert found.mean(0) == pytest.approx(delta, abs=within)
    # Lemma 3.1: E‖Q(v) − v‖² ≤ min(d/s², √d/s) ‖v‖².
    bound = min(24 / s**2, 24**0.5 / s) * norm**2
    assert 0 < np.square(found - delta).sum(1).mean() <= bound


def test_no_level_is_beyond_the_norm():
    for seed in range(20):
        delta = {"w": np.eye(1, 9, seed % 9, dtype=np.float32)[0] * np.float32(0.1 + seed)}
        found, _ = sent(Qsgd(levels=7, bucket=9), delta, server_round=seed)
        assert found["w"] == pytest.approx(delta["w"], rel=1e-6)


def test_zeros_and_a_last_bucket_that_is_not_full():
    found, size = sent(Qsgd(levels=7, bucket=4), vector(0, 0, 0, 0, 0, 0, 2))
    assert found["w"].tolist() == [0, 0, 0, 0, 0, 0, 2]
    assert size == 4 * 2 + 4


def test_draws_change_with_round_client_and_seed_alone():
    delta = normal(w=200)

    def once(mod=None, client=0, server_round=1):
        return tuple(sent(mod or Qsgd(), delta, context(client), server_round)[0]["w"])

    assert once() == once()
    assert len({once(), once(client=1), once(server_round=2), once(Qsgd(seed=1))}) == 4


def test_a_round_can_be_simulated():
    delta = normal(w=(10, 20))
    found = Qsgd(127, 50).perturbed(delta, np.random.default_rng(0))
    assert found["w"].shape == (10, 20)
    assert found["w"] == pytest.approx(delta["w"], abs=float(np.linalg.norm(delta["w"])) / 127)
    assert not np.array_equal(found["w"], delta["w"])


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"levels": 0}, "levels=0: expected in 1..127"),
        ({"levels": 128}, "levels=128: expected in 1..127"),
        ({"bucket": 0}, "bucket=0: expected at least 1"),
    ],
)
def test_bad_settings(settings, line):
    assert refusal(Qsgd, **settings) == line
