import numpy as np
import pytest
import torch
from scipy import stats

from fedmia.privacy.randomness import gaussian_source, uniform_source
from fedmia.seeding import generator

N = 200_000


@pytest.mark.parametrize("secure", [True, False], ids=["secure", "seeded"])
def test_noise_is_standard_normal(secure):
    noise = gaussian_source(secure, 1, "noise")(N).astype(float)
    assert noise.dtype == np.float64
    assert abs(noise.mean()) < 5 / np.sqrt(N)
    assert abs(noise.var() - 1) < 5 * np.sqrt(2 / N)
    assert abs((noise**3).mean()) < 5 * np.sqrt(15 / N)
    assert abs((noise**4).mean() - 3) < 5 * np.sqrt(96 / N)
    assert stats.kstest(noise, "norm").pvalue > 1e-6


@pytest.mark.parametrize("secure", [True, False], ids=["secure", "seeded"])
@pytest.mark.parametrize("lag", [1, 2**14, 2**15])
def test_noise_does_not_depend_on_what_came_before(secure, lag):
    noise = gaussian_source(secure, 2, "noise")(N)
    for moment in (noise, noise**2):
        assert abs(np.corrcoef(moment[lag:], moment[:-lag])[0, 1]) < 5 / np.sqrt(N - lag)


@pytest.mark.parametrize("secure", [True, False], ids=["secure", "seeded"])
@pytest.mark.parametrize("size", [0, 1, 7, 2**15, 2**15 + 3])
def test_noise_has_the_size_and_type_asked_for(secure, size):
    noise = gaussian_source(secure, 1, "noise")(size)
    assert noise.shape == (size,)
    assert noise.dtype == (np.float64 if secure else np.float32)
    assert np.all(np.isfinite(noise))


@pytest.mark.parametrize("source", [gaussian_source, uniform_source])
def test_a_seed_gives_its_stream_again_and_every_key_another(source):
    def first(*key):
        return tuple(source(False, *key)(5))

    assert first(1, "noise", 2, 3) == first(1, "noise", 2, 3)
    others = [first(1, "noise", 3, 2), first(2, "noise", 2, 3), first(1, "other", 2, 3)]
    assert len({first(1, "noise", 2, 3), *others}) == 4


@pytest.mark.parametrize("source", [gaussian_source, uniform_source])
def test_a_secure_source_never_repeats_whatever_the_seed(source):
    ours = source(True, 1, "noise")
    draws = [ours(50), ours(50), source(True, 1, "noise")(50)]
    assert len({tuple(draw) for draw in draws}) == 3
    assert len(np.unique(draws)) > 145


@pytest.mark.parametrize("source", [gaussian_source, uniform_source])
def test_a_seeded_source_goes_on_where_it_stopped(source):
    ours = source(False, 1, "noise")
    assert not np.array_equal(ours(10), ours(10))


def test_seeded_noise_is_the_same_with_any_number_of_threads():
    before = torch.get_num_threads()
    draws = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        draws.append(gaussian_source(False, 1, "noise")(100_003))
    torch.set_num_threads(before)
    np.testing.assert_array_equal(*draws)


def test_seeded_noise_is_the_normal_quantile_of_the_generators_bits():
    raw = generator(1, "noise").bit_generator.random_raw(50).view(np.int32) >> 8
    quantiles = stats.norm.ppf((raw + 2.0**23 + 0.5) / 2.0**24)
    np.testing.assert_allclose(gaussian_source(False, 1, "noise")(100), quantiles, rtol=2e-5)


def test_a_secure_normal_is_not_one_of_a_single_float_grid():
    noise = gaussian_source(True, 1, "noise")(100_000)
    assert len(np.unique(noise)) > 99_000


def test_uniform_numbers_fill_the_unit_interval_evenly():
    for secure in (True, False):
        numbers = uniform_source(secure, 3, "cohort")(N)
        assert numbers.dtype == np.float64
        assert 0 <= numbers.min() < 1e-4
        assert 1 - 1e-4 < numbers.max() < 1
        assert stats.kstest(numbers, "uniform").pvalue > 1e-6
        assert np.mean(numbers < 0.1) == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / N))
