import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmia.errors import ConfigError
from fedmia.secagg.codec import Codec, flatten, floating, unflatten
from fedmia.secagg.errors import ProtocolError

FLOATS = ["<f2", "<f4", "<f8"]


def summed(codec, clients):
    """Encode (delta, metrics, weight) of every client and add the words up."""
    total = np.zeros_like(codec.encode(*clients[0]))
    for delta, metrics, weight in clients:
        total += codec.encode(delta, metrics, weight)
    return total


def mean_of(codec, clients):
    delta, metrics, _ = clients[0]
    return codec.decode(summed(codec, clients), delta, list(metrics), len(clients))


def test_words_worked_out_by_hand():
    # 4 bits: 7 levels of 1/7 each; 0.5 is 3.5 steps, to the even 4; -2 is clipped to -7
    codec = Codec(cohort=3, clip=1.0, bits=4, max_weight=10, metric_range=2.0)
    delta = {"w": np.array([[0.5], [-2.0], [1 / 7]], np.float32)}
    words = codec.encode(delta, {"loss": 1.0}, 3)
    # 1.0 of 2.0 is 3.5 of 7 levels, to 4; then the weight and one clipped coordinate
    assert words.dtype == np.uint32
    assert codec.signed(words).tolist() == [12, -21, 3, 12, 3, 1]
    other = codec.encode({"w": np.array([[-1.0], [1.0], [0.0]], np.float32)}, {"loss": -2.0}, 1)
    assert codec.signed(other).tolist() == [-7, 7, 0, -7, 1, 0]
    mean = codec.decode(words + other, delta, ["loss"], 2)
    assert mean.weight == 4
    np.testing.assert_allclose(mean.delta["w"], np.array([[5], [-14], [3]]) / 28, rtol=1e-6)
    assert mean.metrics == {"loss": 2.0 * 5 / 28}
    assert mean.clipped == 1 / 6


@st.composite
def federations(draw):
    n = draw(st.integers(1, 6))
    clip = draw(st.floats(1e-3, 1e3))
    codec = Codec(n, clip, draw(st.integers(2, 32)), draw(st.integers(1, 5000)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = np.dtype(draw(st.sampled_from(["<f4", "<f8"])))
    shape = draw(st.sampled_from([(1,), (2, 3), (0, 4), (17,)]))
    clients = [
        (
            {"w": rng.uniform(-clip, clip, shape).astype(dtype)},
            {"loss": float(rng.uniform(-100, 100))},
            int(rng.integers(1, codec.max_weight, endpoint=True)),
        )
        for _ in range(n)
    ]
    return codec, clients


@settings(max_examples=150, deadline=None)
@given(federations())
def test_the_weighted_mean_is_within_the_stated_bound(federation):
    codec, clients = federation
    mean = mean_of(codec, clients)
    weights = np.array([w for *_, w in clients], np.float64)
    values = np.stack([np.asarray(d["w"], np.float64) for d, *_ in clients])
    exact = np.tensordot(weights, values, 1) / weights.sum()
    dtype = clients[0][0]["w"].dtype
    cast = codec.clip * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(mean.delta["w"], exact, rtol=0, atol=codec.error_bound + cast)
    losses = np.array([m["loss"] for _, m, _ in clients])
    step = codec.metric_range / (2 * codec.levels)
    assert abs(mean.metrics["loss"] - weights @ losses / weights.sum()) <= step * (1 + 1e-6)
    assert mean.weight == weights.sum()
    assert mean.delta["w"].dtype == dtype


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("bits", [2, 16, 24, 32])
@pytest.mark.parametrize("clip", [0.1, 0.3, 1.0])
def test_everyone_at_the_limit_with_the_largest_weight_neither_wraps_nor_is_refused(
    dtype, sign, bits, clip
):
    codec = Codec(cohort=50, clip=clip, bits=bits, max_weight=1000)
    delta = {"w": np.full(3, sign * 9.0, dtype)}
    mean = mean_of(codec, [(delta, {"loss": sign * 1e9}, 1000)] * 50)
    np.testing.assert_allclose(mean.delta["w"].astype(float), sign * clip, rtol=1e-3)
    assert mean.metrics == {"loss": sign * 100.0}
    assert mean.clipped == 1.0
    assert codec.signed(codec.encode(delta, {}, 1000))[0] == sign * codec.levels * 1000


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_value_just_at_the_limit_is_not_more_than_the_largest_level(dtype):
    value = np.array([0.3], dtype)  # in half precision it is a little more than 0.3
    codec = Codec(cohort=2, clip=0.3)
    words = codec.encode({"w": value}, {}, 1)
    assert abs(int(codec.signed(words)[0])) <= codec.levels
    assert int(words[-1]) == (float(value[0]) > 0.3)


@pytest.mark.parametrize(
    ("cohort", "weight", "bits", "words"),
    # 3·1·(2^31-1) needs 33 bits and a sign; 2^16 · 1 · (2^15-1) just fits 32
    [(65536, 1, 16, 4), (65540, 1, 16, 8), (3, 1, 32, 8), (100, 1000, 16, 8), (1, 1, 32, 4)],
)
def test_the_modulus_is_the_smaller_that_holds_the_sum(cohort, weight, bits, words):
    codec = Codec(cohort=cohort, max_weight=weight, bits=bits)
    assert codec.dtype == np.dtype(f"<u{words}")
    assert codec.largest_sum < 2 ** (8 * words - 1)
    assert Codec(cohort, 1.0, bits, weight, modulus_bits=64).dtype.itemsize == 8


@pytest.mark.parametrize("modulus_bits", [32, 64])
def test_both_moduli_give_the_same_mean(modulus_bits):
    rng = np.random.default_rng(4)
    clients = [({"w": rng.normal(size=5)}, {}, k) for k in (1, 2, 3)]
    one = Codec(3, bits=12, max_weight=10, modulus_bits=modulus_bits)
    both = [mean_of(codec, clients).delta["w"] for codec in (one, Codec(3, bits=12))]
    np.testing.assert_array_equal(*both)


def test_counters_and_flags_are_left_alone():
    delta = {
        "w": np.ones((2, 2), np.float32),
        "seen": np.array(7, np.int64),
        "b": np.zeros(3, np.float64),
        "on": np.array([True]),
    }
    assert floating(delta) == ["w", "b"]
    assert flatten(delta).tolist() == [1, 1, 1, 1, 0, 0, 0]
    mean = mean_of(Codec(2), [(delta, {}, 1)] * 2)
    assert [(k, v.shape, v.dtype) for k, v in mean.delta.items()] == [
        ("w", (2, 2), np.float32),
        ("b", (3,), np.float64),
    ]
    assert flatten({"seen": delta["seen"]}).shape == (0,)
    with pytest.raises(ProtocolError, match="6 coordinates: expected those of the model"):
        unflatten(np.zeros(6), delta)


@pytest.mark.parametrize("weight", [0, -1, 1001, 2**40])
def test_a_weight_out_of_range_is_refused(weight):
    with pytest.raises(ProtocolError, match=rf"weight {weight}: expected in 1\.\.1000"):
        Codec(3).encode({"w": np.ones(2)}, {}, weight)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value):
    for delta, metrics in (({"w": np.array([0, value])}, {}), ({"w": np.ones(1)}, {"m": value})):
        with pytest.raises(ProtocolError, match="the update or a metric is not finite"):
            Codec(3).encode(delta, metrics, 1)


def test_a_sum_that_no_clients_could_give_is_refused():
    codec = Codec(3, bits=8, max_weight=10)
    delta = {"w": np.full(4, 0.5)}
    good = summed(codec, [(delta, {}, 5)] * 3)
    assert codec.decode(good, delta, [], 3).weight == 15
    for place, value in [(-2, 2), (-2, 31), (-1, 13), (0, 15 * 127 + 1), (0, 2**32 - 15 * 127 - 1)]:
        bad = good.copy()
        bad[place] = value
        with pytest.raises(ProtocolError, match="the masks do not cancel; the sum is out of its"):
            codec.decode(bad, delta, [], 3)


@pytest.mark.parametrize("settings_", [{"modulus_bits": 32}, {"modulus_bits": 64}])
def test_random_words_are_never_taken_for_a_sum(settings_):
    codec = Codec(4, bits=8, max_weight=100, **settings_)
    rng = np.random.default_rng(0)
    like = {"w": np.zeros(1)}
    for _ in range(300):
        total = rng.integers(0, np.iinfo(codec.dtype).max, 3, codec.dtype, endpoint=True)
        with pytest.raises(ProtocolError, match="the masks do not cancel"):
            codec.decode(total, like, [], 4)


def test_more_coordinates_than_can_be_counted_are_refused(monkeypatch):
    codec = Codec(2**16, bits=2, max_weight=1)
    with pytest.raises(ProtocolError, match="the count of clipped ones could wrap"):
        codec.encode({"w": np.zeros(2**16, np.float32)}, {}, 1)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cohort": 0}, "cohort=0: expected at least 1"),
        ({"clip": 0}, "clip=0: expected more than 0 and finite"),
        ({"clip": float("nan")}, "clip=nan: expected more than 0"),
        ({"bits": 1}, r"bits=1: expected in 2\.\.32"),
        ({"bits": 33}, r"bits=33: expected in 2\.\.32"),
        ({"max_weight": 0}, "max_weight=0: expected at least 1"),
        ({"metric_range": np.inf}, "metric_range=inf: expected more than 0 and finite"),
        ({"modulus_bits": 16}, "modulus_bits=16: expected"),
        # 3·1000·32767 has 27 bits; 100 times as much 33, and a sign
        ({"cohort": 300, "modulus_bits": 32}, "modulus_bits=32: expected at least 35, for 300 cl"),
        ({"cohort": 2**30, "bits": 32}, "modulus_bits=64: expected at least 72"),
    ],
)
def test_settings_that_cannot_be_are_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        Codec(**{"cohort": 3, **values})
