"""Features of updates: hand-worked numbers, a naive twin, finite whatever comes."""

import numpy as np
import pytest
from scipy import stats

from fedmia.update_features import BUCKETS, Profile


def model(*shapes):
    names = ["weight", "bias", "head.weight", "head.bias"]
    return {n: np.zeros(s, np.float32) for n, s in zip(names, shapes, strict=False)}


def described(profile, row, aggregate=None, previous=None):
    row = np.asarray(row, np.float32)
    sketches = [
        None if v is None else profile.sketch(np.asarray(v, np.float32))
        for v in (aggregate, previous)
    ]
    if sketches[0] is None:
        sketches[0] = np.zeros(profile.sketch_size, np.float32)
    found = profile(row, profile.sketch(row), *sketches)
    return dict(zip(profile.names, found, strict=True))


def test_features_worked_out_by_hand():
    profile = Profile(model((1, 2), (2,)))
    # weight (3, −1): norm √10, mean 1, rms √5, variance 4, both entries 2 from the mean: kurtosis 1
    found = described(profile, [3, -1, 0.6, 0.8], aggregate=[1, 1, -3, -4], previous=[3, -1, 4, -3])
    expected = {
        "weight.log_norm": np.log(10) / 2,
        "weight.mean": 1 / np.sqrt(5),
        "weight.log_std": np.log(2),
        "weight.log_kurtosis": 0.0,
        "weight.cosine_aggregate": 2 / np.sqrt(20),
        "weight.cosine_previous": 1.0,
        "bias.log_norm": 0.0,
        "bias.mean": 0.7 / np.sqrt(0.5),
        "bias.log_std": np.log(0.1),
        "bias.log_kurtosis": 0.0,
        "bias.cosine_aggregate": -1.0,
        "bias.cosine_previous": 0.0,
        "bias[0]": 0.6,
        "bias[1]": 0.8,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-5), name


def test_statistics_are_those_of_scipy():
    values = np.random.default_rng(0).standard_t(5, 5000).astype(np.float32) * 1e-3 + 2e-4
    found = described(Profile(model((50, 100))), values)
    x = values.astype(np.float64)
    assert found["weight.log_norm"] == pytest.approx(np.log(np.linalg.norm(x)), abs=1e-5)
    assert found["weight.mean"] == pytest.approx(x.mean() / np.sqrt((x**2).mean()), abs=1e-5)
    assert found["weight.log_std"] == pytest.approx(np.log(x.std()), abs=1e-5)
    kurtosis = stats.kurtosis(x, fisher=False)
    assert found["weight.log_kurtosis"] == pytest.approx(np.log(kurtosis), abs=1e-4)


def test_a_sketch_is_linear_and_keeps_cosines():
    profile = Profile(model((300, 200), (200,)))
    rng = np.random.default_rng(1)
    a, noise = rng.normal(size=(2, profile.size)).astype(np.float32)
    b = a + noise
    together = profile.sketch(a) + profile.sketch(noise)
    np.testing.assert_allclose(profile.sketch(b), together, atol=1e-3)
    assert profile.sketch_size == BUCKETS + 200
    assert described(profile, b, aggregate=a)["weight.cosine_aggregate"] == pytest.approx(
        np.sqrt(0.5), abs=0.1
    )
    assert described(profile, -a, aggregate=a)["weight.cosine_aggregate"] == pytest.approx(-1)
    np.testing.assert_array_equal(profile.sketch(a)[BUCKETS:], a[-200:])


def test_every_sketch_of_a_model_has_the_same_signs():
    row = np.random.default_rng(2).normal(size=5000).astype(np.float32)
    one, other = (Profile(model((50, 100))).sketch(row) for _ in range(2))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e-20, 1.0, 1e15])
def test_features_are_finite_and_as_many_whatever_comes(scale):
    profile = Profile(model((40, 50), (50,), (1, 50), (1,)))
    row = scale * np.random.default_rng(3).normal(size=profile.size)
    for update in (row, np.abs(row), np.full(profile.size, scale)):
        found = described(profile, update, aggregate=row, previous=update)
        assert len(found) == len(profile) == 4 * 6 + 50
        assert np.isfinite(list(found.values())).all()


def test_only_the_cosine_to_an_update_that_is_not_known_is_none():
    found = described(Profile(model((40, 50), (50,))), np.ones(2050))
    unknown = {name for name, value in found.items() if np.isnan(value)}
    assert unknown == {"weight.cosine_previous", "bias.cosine_previous"}


def test_integers_of_a_model_are_left_out():
    arrays = {"weight": np.ones((2, 3), np.float32), "count": np.array(7)}
    profile = Profile(arrays)
    assert profile.size == 6
    np.testing.assert_array_equal(profile.flat(arrays), 1.0)


def test_the_most_telling_features_are_named():
    profile = Profile(model((1, 2)))
    assert profile.most(np.array([0.0, 5, 1, 2, 9, 3]), 2) == {
        "weight.cosine_aggregate": 4,
        "weight.mean": 1,
    }
