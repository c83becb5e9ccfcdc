import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.rounding import round_conditionally, squared_norm_bound
from fedmia.secagg.stream import key_stream


def stream(number=0):
    return key_stream(number.to_bytes(32, "little"))


def test_the_bound_by_hand():
    # β = e^(−1/2): √(2 ln(1/β)) = 1, so 100 + 16/4 + (10 + 2) = 116 against (10 + 4)² = 196
    assert squared_norm_bound(10.0, 16, math.exp(-0.5) * (1 - 1e-12)) == 116
    # β = e^(−50): √100 = 10, so 100 + 4 + 120 = 224 and 196 is less
    assert squared_norm_bound(10.0, 16, math.exp(-50)) == 196


@pytest.mark.parametrize("beta", [math.exp(-0.5), 0.1])
def test_one_try_meets_the_bound_as_often_as_promised(beta):
    d, clip = 64, 3.0
    rng = np.random.default_rng(0)
    bound = squared_norm_bound(clip, d, beta)
    # half the coordinates at one half, the worst for rounding
    x = np.where(np.arange(d) < 36, 0.5, 0.0)
    assert np.linalg.norm(x) == clip
    rounded = np.floor(x) + (rng.random((4000, d)) < x)
    met = np.mean((rounded**2).sum(axis=1) <= bound)
    assert met > 1 - beta


@given(
    st.lists(st.floats(-40, 40), min_size=1, max_size=64),
    st.sampled_from([0.9, math.exp(-0.5), 0.05, 1e-9]),
    st.integers(0, 2**32),
)
def test_a_rounding_keeps_the_bound_and_stays_within_one(values, beta, number):
    x = np.array(values)
    bound = squared_norm_bound(float(np.linalg.norm(x)) * (1 + 1e-12), x.size, beta)
    rounded = round_conditionally(x, bound, stream(number))
    assert rounded.dtype == np.int64
    assert sum(int(v) ** 2 for v in rounded) <= bound
    assert (np.abs(rounded - x) < 1).all() or np.array_equal(rounded, x)


def test_it_rounds_again_exactly_when_a_plain_rounding_is_too_long():
    x, bound, tries = np.full(16, 0.5), 8, []
    for number in range(20):
        naive, used = stream(number), stream(number)
        tries.append(0)
        ups = [1] * 16
        while sum(ups) > bound:
            ups = [int((w >> 11) / 2**53 < 0.5) for w in np.frombuffer(naive(16), "<u8").tolist()]
            tries[-1] += 1
        assert round_conditionally(x, bound, used).tolist() == ups
        assert used(1) == naive(1)
    assert min(tries) == 1
    assert max(tries) > 2


def test_the_mean_is_kept():
    x = np.array([0.25, -0.25, 3.9, -7.5, 0.0, 2.0])
    words = stream()
    many = np.array([round_conditionally(x, 10**6, words) for _ in range(8000)])
    error = np.sqrt((x - np.floor(x)) * (np.ceil(x) - x) / 8000)
    assert (np.abs(many.mean(axis=0) - x) <= 4.5 * error).all()
    assert (many[:, 4:] == [0, 2]).all()


def test_integers_stay_and_tiny_negatives_go_to_zero():
    x = np.array([-3.0, 0.0, 5.0, -1e-300])
    assert round_conditionally(x, 34, stream()).tolist() == [-3, 0, 5, 0]


def test_a_vector_that_is_too_long_is_refused_rather_than_let_through():
    with pytest.raises(ProtocolError, match="squared norm of at most 8"):
        round_conditionally(np.array([3.0]), 8, stream())
