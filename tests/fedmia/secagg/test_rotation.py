import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedmia.errors import ConfigError
from fedmia.secagg.rotation import padded_length, rotate, unrotate

SEED = bytes(range(32))


def signs(seed, d):
    """Read off: the rotation of the unit vector e_i has ξ_i/√d as its first coordinate."""
    return np.array([rotate(np.eye(d)[i], seed)[0] for i in range(d)]) * np.sqrt(d)


def naive(x, seed):
    d = padded_length(x.size)
    matrix = np.array([[(-1) ** (i & j).bit_count() for j in range(d)] for i in range(d)])
    return matrix @ (signs(seed, d) * np.pad(x, (0, d - x.size))) / np.sqrt(d)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 8, 16, 31, 33, 64])
def test_the_rotation_is_that_of_the_matrix(length):
    x = np.random.default_rng(length).normal(size=length)
    np.testing.assert_allclose(rotate(x, SEED), naive(x, SEED), atol=1e-12)


def test_two_coordinates_by_hand():
    # the zero key's stream begins with 0x76 = 0b01110110: ξ = (+1, −1)
    np.testing.assert_allclose(
        rotate(np.array([3.0, 5.0]), bytes(32)), np.array([-2.0, 8.0]) / np.sqrt(2)
    )


def test_signs_are_balanced_and_follow_the_seed():
    ours, theirs = signs(SEED, 512), signs(bytes(32), 512)
    np.testing.assert_allclose(np.abs(ours), 1)
    for mean in (ours.mean(), theirs.mean(), (ours * theirs).mean()):
        assert abs(mean) < 4 / np.sqrt(512)


@given(
    arrays(
        np.float64,
        st.integers(1, 200),
        elements=st.floats(-1e6, 1e6, width=32),
    ),
    st.binary(min_size=32, max_size=32),
)
def test_it_is_undone_and_keeps_the_norm(x, seed):
    y = rotate(x, seed)
    scale = np.linalg.norm(x)
    assert np.linalg.norm(y) == pytest.approx(scale, rel=1e-12)
    np.testing.assert_allclose(unrotate(y, seed, x.size), x, rtol=0, atol=1e-12 * scale)


def test_a_spike_becomes_flat():
    spike = np.zeros(1000)
    spike[123] = -7.0
    np.testing.assert_allclose(np.abs(rotate(spike, SEED)), 7 / np.sqrt(1024))


def test_a_constant_becomes_as_flat_as_noise():
    y = rotate(np.ones(4096), SEED)
    assert np.abs(y).max() < 5.5
    assert np.var(y) == pytest.approx(1.0, abs=0.01)


def test_arguments_are_left_as_they_are():
    x = np.arange(8, dtype=np.float32)
    y = rotate(x, SEED)
    kept = y.copy()
    unrotate(y, SEED, 8)
    assert x.tolist() == list(range(8))
    np.testing.assert_array_equal(y, kept)


def test_another_seed_does_not_undo_it():
    x = np.ones(64)
    assert np.abs(unrotate(rotate(x, SEED), bytes(32), 64) - x).max() > 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rotate(np.zeros(0), SEED), "update=shape"),
        (lambda: rotate(np.zeros((2, 2)), SEED), "update=shape"),
        (lambda: rotate(np.zeros(4), b"short"), "key=5 bytes"),
        (lambda: unrotate(np.zeros(8), SEED, 4), r"rotated=shape \(8,\): expected shape \(4,\)"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
