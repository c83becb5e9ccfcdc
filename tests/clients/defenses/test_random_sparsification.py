"""Random coordinates: unbiased where scaled, others in every round and at every client."""

import numpy as np
import pytest
from changing import context, normal, refusal, sent

from clients.defenses.random_sparsification import RandomSparsification


def test_what_is_sent_is_the_update_over_p_or_nothing():
    delta = normal(w=(100, 30), b=20)
    found, size = sent(RandomSparsification(0.25), delta)
    together = np.concatenate([found["w"].ravel(), found["b"]])
    whole = np.concatenate([delta["w"].ravel(), delta["b"]])
    kept = together != 0
    assert together[kept] == pytest.approx(whole[kept] * 4)
    assert 0.2 < kept.mean() < 0.3
    assert size == 5 + -(-3020 // 8) + 4 * kept.sum()
    plain, _ = sent(RandomSparsification(0.25, scaled=False), delta)
    assert plain["w"][plain["w"] != 0] == pytest.approx(delta["w"][plain["w"] != 0])


def mean_of(mod, delta, rounds):
    rng = np.random.default_rng(0)
    return sum(mod.perturbed(delta, rng)["w"] for _ in range(rounds)) / rounds


def test_the_mean_of_many_draws_is_the_update():
    delta, rounds = normal(w=50), 2000
    mean = mean_of(RandomSparsification(0.5), delta, rounds)
    # A coordinate is 2v or 0 by a fair coin, so that its standard error is |v| / √rounds.
    assert (np.abs(mean - delta["w"]) < 4.5 * np.abs(delta["w"]) / rounds**0.5).all()


def test_without_scaling_the_mean_is_p_times_the_update():
    delta, rounds = normal(w=50), 2000
    mean = mean_of(RandomSparsification(0.5, scaled=False), delta, rounds)
    assert (np.abs(mean - delta["w"] / 2) < 2.25 * np.abs(delta["w"]) / rounds**0.5).all()


def test_coordinates_change_with_round_client_and_seed_alone():
    delta = normal(w=200)

    def kept(mod=None, client=0, server_round=1):
        mod = mod or RandomSparsification(0.5)
        return tuple(sent(mod, delta, context(client), server_round)[0]["w"] != 0)

    assert kept() == kept()
    others = {kept(client=1), kept(server_round=2), kept(RandomSparsification(0.5, seed=1))}
    assert len(others | {kept()}) == 4


def test_all_coordinates_with_probability_one():
    delta = normal(w=20)
    assert np.array_equal(sent(RandomSparsification(1.0), delta)[0]["w"], delta["w"])


def test_a_round_can_be_simulated():
    mod, delta = RandomSparsification(0.5), normal(w=200)
    found = mod.perturbed(delta, np.random.default_rng(3))
    assert 60 < np.count_nonzero(found["w"]) < 140
    again = mod.perturbed(delta, np.random.default_rng(3))
    assert np.array_equal(found["w"], again["w"])


def test_bad_settings():
    assert refusal(RandomSparsification, share=0.0) == "share=0.0: expected in (0, 1]"
