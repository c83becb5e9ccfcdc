"""The detectors learn: clean rows are rebuilt, others of the same length are not."""

import numpy as np
import pytest
import torch

from fedmia.detectors import KINDS, fit, untrained

FEATURES = 20
DIRECTIONS = np.linalg.qr(np.random.default_rng(7).normal(size=(FEATURES, FEATURES)))[0]


def rows(count, rng, own=slice(0, 3)):
    """Rows in three directions with a little noise, all of about the same length."""
    code = rng.normal(size=(count, 3))
    code /= np.linalg.norm(code, axis=1, keepdims=True)
    return 3 * code @ DIRECTIONS[own] + 0.05 * rng.normal(size=(count, FEATURES))


def trained(kind, steps=400):
    detector = untrained(kind, FEATURES, 32, 4, seed=0)
    fit(detector, rows(200, np.random.default_rng(0)), steps, 0.01, np.random.default_rng(1))
    return detector


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_detector_tells_planted_rows_and_an_untrained_one_does_not(kind):
    rng = np.random.default_rng(2)
    clean, planted = rows(100, rng), rows(100, rng, slice(3, 6))
    detector = trained(kind)
    assert detector.errors(clean).max() < detector.errors(planted).min()
    assert detector.errors(planted).mean() > 3 * detector.errors(clean).mean()
    blank = untrained(kind, FEATURES, 32, 4, seed=0)
    overlap = (blank.errors(clean)[:, None] > blank.errors(planted)).mean()
    assert 0.2 < overlap < 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_trains_to_the_same_weights(kind):
    one, other = (trained(kind, steps=5).params() for _ in range(2))
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])


def test_the_steps_are_those_of_adam():
    z = rows(10, np.random.default_rng(3))
    ours, theirs = (untrained("autoencoder", FEATURES, 8, 2, seed=0) for _ in range(2))
    fit(ours, z, 3, 0.01, np.random.default_rng(0))
    x = torch.from_numpy(np.arcsinh(z)).float()
    weights = list(theirs.parameters())
    first, second = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    for step in (1, 2, 3):
        gradients = torch.autograd.grad(((theirs.rebuilt(x) - x) ** 2).mean(), weights)
        for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.999 * second[i] + 0.001 * g**2
            m, v = first[i] / (1 - 0.9**step), second[i] / (1 - 0.999**step)
            w.data -= 0.01 * m / (v.sqrt() + 1e-8)
    for name, value in theirs.params().items():
        np.testing.assert_allclose(ours.params()[name], value, atol=1e-5)


def test_an_error_is_the_mean_of_its_squared_parts():
    detector = untrained("autoencoder", 2, 2, 1, seed=0)
    zero = {name: np.zeros_like(value) for name, value in detector.params().items()}
    detector.load(zero)
    z = np.array([[np.sinh(2.0), np.sinh(-4.0)]])
    np.testing.assert_allclose(detector.parts(z), [[4.0, 16.0]], rtol=1e-6)
    np.testing.assert_allclose(detector.errors(z), [10.0], rtol=1e-6)


@pytest.mark.parametrize("bad", ["missing", "shape", "nan"])
def test_weights_that_are_none_are_refused(bad):
    detector = untrained("vae", 3, 2, 1, seed=0)
    params = detector.params()
    name = next(iter(params))
    if bad == "missing":
        del params[name]
    elif bad == "shape":
        params[name] = params[name][:1]
    else:
        params[name][0] = np.nan
    with pytest.raises(ValueError, match="not"):
        detector.load(params)
