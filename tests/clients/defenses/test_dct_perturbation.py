"""Low frequencies with noise; a rotation alone protects nothing."""

import numpy as np
import pytest
from changing import context, normal, refusal, sent
from scipy.fft import dct, idct

from clients.defenses.dct_perturbation import DctPerturbation


def test_high_frequencies_are_cut_off_in_every_array():
    delta = normal(w=(6, 5), b=7)
    found, size = sent(DctPerturbation(0.3, noise_std=0), delta)
    for name, kept in (("w", 9), ("b", 3)):
        before, after = (dct(d[name].ravel(), norm="ortho") for d in (delta, found))
        assert after[:kept] == pytest.approx(before[:kept], abs=1e-5)
        assert after[kept:] == pytest.approx(0, abs=1e-5)
    assert size == 4 * (9 + 3)


def test_with_all_frequencies_and_isotropic_noise_it_is_plain_noise():
    delta, std = normal(w=(6, 5)), 0.3
    found = DctPerturbation(1.0, std).perturbed(delta, np.random.default_rng(5))
    rotated = np.random.default_rng(5).standard_normal(30, dtype=np.float32)
    noise = idct(rotated, norm="ortho")
    assert np.linalg.norm(noise) == pytest.approx(np.linalg.norm(rotated), rel=1e-5)
    assert found["w"].ravel() == pytest.approx(delta["w"].ravel() + std * noise, abs=1e-5)


def test_that_noise_has_the_distribution_of_plain_noise():
    zero = {"w": np.zeros(8, np.float32)}
    mod, rng = DctPerturbation(1.0, 0.5), np.random.default_rng(0)
    draws = np.array([mod.perturbed(zero, rng)["w"] for _ in range(5000)])
    # Var of an entry of the sample covariance is at most 2σ⁴/n.
    assert np.cov(draws.T) == pytest.approx(0.25 * np.eye(8), abs=5 * 0.25 * (2 / 5000) ** 0.5)
    assert draws.mean(0) == pytest.approx(np.zeros(8), abs=5 * 0.5 / 5000**0.5)


def test_without_noise_and_with_all_frequencies_the_update_is_untouched():
    delta = normal(w=(6, 5))
    assert sent(DctPerturbation(1.0, 0.0), delta)[0]["w"] == pytest.approx(delta["w"], abs=1e-6)


def test_noise_in_bands_follows_their_energy():
    coefficients = np.repeat(np.float32([4.0, 2.0, 0.0]), 4)
    delta = {"w": idct(coefficients, norm="ortho").astype(np.float32)}
    mod, rng = DctPerturbation(1.0, 0.1, "bands", bands=3), np.random.default_rng(0)
    draws = [dct(mod.perturbed(delta, rng)["w"], norm="ortho") - coefficients for _ in range(1500)]
    found = np.sqrt(np.square(draws).mean(0)).reshape(3, 4)
    mean = (4**2 + 2**2) / 3
    expected = 0.1 * np.array([4, 2, 0]) / mean**0.5
    assert found == pytest.approx(np.repeat(expected, 4).reshape(3, 4), abs=0.01)
    assert np.square(draws).sum(1).mean() == pytest.approx(12 * 0.1**2, rel=0.05)


def test_more_bands_than_coefficients_and_an_update_of_zeros():
    found, _ = sent(DctPerturbation(1.0, 0.1, "bands", bands=50), normal(w=7))
    assert np.isfinite(found["w"]).all()
    found, _ = sent(DctPerturbation(1.0, 0.1, "bands"), {"w": np.zeros(7, np.float32)})
    assert 0 < np.abs(found["w"]).max() < 1


def test_noise_changes_with_round_client_and_seed_alone():
    delta = normal(w=20)

    def once(mod=None, client=0, server_round=1):
        return tuple(sent(mod or DctPerturbation(), delta, context(client), server_round)[0]["w"])

    assert once() == once()
    others = {once(client=1), once(server_round=2), once(DctPerturbation(seed=1))}
    assert len(others | {once()}) == 4


def test_the_lens_of_who_knows_it_has_the_same_share():
    assert DctPerturbation(0.3).lens.share == 0.3


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"share": 0}, "share=0: expected in (0, 1]"),
        ({"noise_std": -1}, "noise_std=-1: expected at least 0 and finite"),
        ({"noise": "pink"}, "noise=pink: expected isotropic or bands"),
        ({"bands": 0}, "bands=0: expected at least 1"),
    ],
)
def test_bad_settings(settings, line):
    assert refusal(DctPerturbation, **settings) == line
