import math
from contextlib import suppress
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmia.errors import ConfigError
from fedmia.secagg.distributed_noise import DistributedNoise
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.rotation import rotate
from fedmia.secagg.stream import key_stream

MECHANISMS = ["discrete_gaussian", "skellam"]
SEED = bytes(range(32))


def noise(mechanism="skellam", **changes):
    values = {
        "mechanism": mechanism,
        "clip": 2.0,
        "noise_multiplier": 0.5,
        "bits": 18,
        "cohort": 8,
        "min_survivors": 5,
        "length": 100,
    }
    return DistributedNoise(**(values | changes))


def stream(*numbers):
    return key_stream(b"".join(n.to_bytes(8, "little") for n in numbers).ljust(32, b"\0"))


def updates(count, norm=1.5, length=100):
    x = np.random.default_rng(0).normal(size=(count, length))
    return norm * x / np.linalg.norm(x, axis=1, keepdims=True)


def decoded(dp, x, repetition=0):
    seed = stream(999, repetition)(4)
    total = sum(dp.encode(u, seed, stream(repetition, i)) for i, u in enumerate(x))
    return dp.decode(total, seed)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("survivors", [5, 6, 8])
def test_the_decoded_sum_has_the_right_mean_and_variance(mechanism, survivors):
    dp, x, repetitions = noise(mechanism), updates(survivors), 200
    errors = np.array([decoded(dp, x, r) for r in range(repetitions)]) - x.sum(axis=0)
    std = 0.5 * 2.0 * math.sqrt(survivors / 5)
    scores = errors.mean(axis=0) / (std / math.sqrt(repetitions))
    assert np.abs(scores).max() < 4.5
    assert np.mean(scores**2) == pytest.approx(1, abs=5 * math.sqrt(2 / 100))
    assert np.mean(errors**2) / std**2 == pytest.approx(
        1, abs=5 * math.sqrt(2 / (100 * repetitions))
    )


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_coarse_granules_keep_mean_and_variance(mechanism):
    # γ is no longer small against the noise, and rounding adds at most γ²/4 a client
    dp = noise(mechanism, bits=10, noise_multiplier=0.02)
    assert dp.granularity > 0.02 * 2.0 / 2
    x, repetitions = updates(5), 300
    errors = np.array([decoded(dp, x, r) for r in range(repetitions)]) - x.sum(axis=0)
    variance = np.mean(errors**2)
    promised = (0.02 * 2.0) ** 2
    assert promised * 1.1 < variance < promised + 5 * dp.granularity**2 / 4
    assert np.abs(errors.mean(axis=0)).max() < 4.5 * math.sqrt(variance / repetitions)


def test_the_variance_of_a_share_is_that_of_the_sum_over_the_fewest_survivors():
    dp = noise()
    promised = (0.5 * 2.0 / dp.granularity) ** 2
    assert float(dp.share.variance) * 5 == pytest.approx(promised, rel=1e-14)
    assert dp.statement().variance_of_sum == Fraction(dp.share.variance) * 5


def test_granularity_by_hand():
    # d = 4, n = m = 1: k² = 2.02 ln(8·2^40) = 60.21; M − n = 510;
    # signal c/√d = 1/2, noise z·c = 1/2, both √½: γ = 7.7593 · 0.70711 / 510
    dp = noise(clip=1.0, noise_multiplier=0.5, bits=10, cohort=1, min_survivors=1, length=3)
    assert dp.dimension == 4
    assert dp.deviations == pytest.approx(7.7593, abs=1e-4)
    assert dp.granularity == pytest.approx(7.7593 * 0.70711 / 510, rel=1e-4)
    assert dp.integer_bound == 510


def test_granularity_makes_room_for_the_noise_of_the_whole_cohort():
    # n = 9 clients, each with the noise for m = 1: three times σ = 10; signal 9·1/√4; M − n = 2038
    dp = noise(clip=1.0, noise_multiplier=10.0, bits=12, cohort=9, min_survivors=1, length=4)
    assert dp.granularity == pytest.approx(7.7593 * math.hypot(30, 4.5) / 2038, rel=1e-4)


def test_granularity_grows_with_the_cohort_and_halves_with_each_bit():
    base = noise(bits=16)
    assert noise(bits=17).granularity == pytest.approx(base.granularity / 2, rel=1e-3)
    assert noise(bits=16, cohort=16).granularity > 1.4 * base.granularity


def test_granules_get_no_finer_than_the_noise_can_use():
    dp = noise(bits=60)
    assert math.sqrt(dp.share.variance) == pytest.approx(2**14)
    assert dp.integer_bound < 2**21


@given(
    cohort=st.integers(1, 2000),
    lost=st.floats(0, 0.9),
    length=st.integers(1, 10**6),
    multiplier=st.floats(1e-2, 10),
    bits=st.integers(14, 32),
)
def test_the_bound_fits_the_bits(cohort, lost, length, multiplier, bits):
    survivors = max(1, int(cohort * (1 - lost)))
    dp = noise(
        cohort=cohort,
        min_survivors=survivors,
        length=length,
        noise_multiplier=multiplier,
        bits=bits,
    )
    assert dp.integer_bound < 2 ** (bits - 1)
    if dp.granularity > 1.01 * multiplier * dp.clip / math.sqrt(survivors) / 2**14:
        assert dp.integer_bound >= 2 ** (bits - 1) - 3


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_no_sum_wraps_and_the_bound_is_not_far_away(mechanism):
    # all clients alike and at the clip: the largest signal there is
    dp = noise(mechanism, bits=12, noise_multiplier=0.1)
    x, largest = np.repeat(updates(1, norm=2.0), 8, axis=0), 0
    modulus = 2**dp.bits
    for r in range(100):
        seed = stream(r)(4)
        parts = [dp.encode(u, seed, stream(r, i)) for i, u in enumerate(x)]
        total = np.sum(parts, axis=0)
        largest = max(largest, np.abs(total).max())
        wrapped = np.sum([p % modulus for p in parts], axis=0) % modulus
        centred = (wrapped + modulus // 2) % modulus - modulus // 2
        np.testing.assert_array_equal(centred, total)
    assert dp.integer_bound / 3 < largest < dp.integer_bound


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_tail_bound_holds_where_it_can_be_counted(mechanism):
    # at a probability of 1/4 a few rounds in a hundred may wrap, not half of them
    dp = noise(mechanism, bits=12, length=8, wrap_probability=0.25, noise_multiplier=2.0)
    x, wraps = np.repeat(updates(1, norm=2.0, length=8), 8, axis=0), 0
    for r in range(200):
        seed = stream(r)(4)
        total = sum(dp.encode(u, seed, stream(r, i)) for i, u in enumerate(x))
        wraps += np.abs(total).max() > dp.integer_bound
    assert wraps / 200 < 0.25


def rounded_update(dp, update, number):
    """Return x̃ alone: the same words after one try of rounding give the same noise."""
    words = stream(number)(2 * dp.dimension)

    def replay():
        left = [words]

        def take(count):
            piece, left[0] = left[0][: 8 * count], left[0][8 * count :]
            assert len(piece) == 8 * count
            return piece

        return take

    return dp.encode(update, SEED, replay()) - dp.encode(np.zeros(dp.length), SEED, replay())


def test_what_a_client_adds_keeps_the_sensitivity():
    # at such a β about every second rounding is too long
    dp, rounded = noise(bits=13, length=128, beta=0.9999), []
    far = updates(1, norm=1e4, length=128)[0]
    for number in range(12):
        with suppress(AssertionError):  # more than one try
            rounded.append(rounded_update(dp, far, number))
    assert 2 <= len(rounded) <= 11
    claim = dp.statement()
    for x in rounded:
        assert 0.98 * claim.l2_sensitivity < np.linalg.norm(x) <= claim.l2_sensitivity
        assert np.abs(x).sum() <= claim.l1_sensitivity
        assert (np.abs(x - rotate(far / 1e4 * 2.0, SEED) / dp.granularity) < 1).all()


def test_an_update_within_the_clip_is_not_scaled():
    dp = noise(bits=30, noise_multiplier=1e-4)
    for norm, expected in [(1.9, 1.9), (2.0, 2.0), (50.0, 2.0), (1e-3, 1e-3)]:
        (u,) = updates(1, norm=norm)
        result = dp.decode(dp.encode(u, SEED, stream(1)), SEED)
        np.testing.assert_allclose(result, u * expected / norm, atol=1e-3)


def test_an_update_of_zeros_is_noise_alone():
    dp = noise(bits=14)
    zero = np.zeros(100, dtype=np.float32)
    encoded = dp.encode(zero, SEED, stream(3))
    words = stream(3)
    words(dp.dimension)  # one try of rounding
    np.testing.assert_array_equal(encoded, dp.share.sample(dp.dimension, words))
    assert np.count_nonzero(encoded) > 100


def test_one_client_with_one_coordinate():
    dp = noise(cohort=1, min_survivors=1, length=1, bits=16)
    results = [dp.decode(dp.encode(np.array([1.0]), SEED, stream(r)), SEED)[0] for r in range(2000)]
    assert np.mean(results) == pytest.approx(1.0, abs=4 / math.sqrt(2000))
    assert np.var(results) == pytest.approx(1.0, abs=5 * math.sqrt(2 / 2000))


def test_clients_draw_their_own_noise():
    dp = noise()
    u = updates(1)[0]
    assert not np.array_equal(dp.encode(u, SEED), dp.encode(u, SEED))
    np.testing.assert_array_equal(dp.encode(u, SEED, stream(1)), dp.encode(u, SEED, stream(1)))


def test_the_statement_by_hand():
    # d = 16; √(2 ln(1/β)) = 1 at β = e^(−1/2)
    dp = noise("discrete_gaussian", length=16, bits=18)
    granules = 2.0 / dp.granularity
    squared = granules**2 + 16 / 4 + granules + 2
    claim = dp.statement()
    assert claim.l2_sensitivity**2 == pytest.approx(squared, abs=1)
    assert claim.l2_sensitivity > granules
    assert claim.l1_sensitivity == pytest.approx(4 * claim.l2_sensitivity)
    assert float(claim.variance_of_sum) == pytest.approx((0.5 * granules) ** 2)
    assert (claim.mechanism, claim.survivors, claim.dimension) == ("discrete_gaussian", 5, 16)
    assert claim.granularity == dp.granularity
    assert any("5 clients" in c for c in claim.claims)
    assert any("not equal" in c for c in claim.claims)
    assert any("exactly Skellam" in c for c in noise("skellam").statement().claims)


def test_few_granules_bound_the_l1_norm_by_the_squared_l2_norm():
    # d = 2^20 and g ≈ 1 granules in the clip: d/4 + √d/2 + g² + g ≈ 262,658, below 1024·√262,658
    dp = noise(length=2**20, bits=11, noise_multiplier=100.0, cohort=5)
    assert 0.8 < dp.clip / dp.granularity < 1.3
    claim = dp.statement()
    assert claim.l1_sensitivity == pytest.approx(262_658, abs=2)
    assert claim.l2_sensitivity == pytest.approx(math.sqrt(262_658), abs=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mechanism": "gaussian"}, "mechanism=gaussian: expected one of"),
        ({"clip": 0.0}, "clip=0.0: expected a finite number > 0"),
        ({"clip": math.nan}, "clip=nan"),
        ({"noise_multiplier": 0.0}, "noise_multiplier=0.0"),
        ({"noise_multiplier": math.inf}, "noise_multiplier=inf"),
        ({"noise_multiplier": 1e-12, "bits": 20}, "noise_multiplier=1e-12"),
        ({"cohort": 0}, "cohort=0: expected ≥ 1"),
        ({"length": 0}, "length=0: expected ≥ 1"),
        ({"min_survivors": 0}, r"min_survivors=0: expected in \[1, cohort=8\]"),
        ({"min_survivors": 9}, "min_survivors=9"),
        ({"beta": 0.0}, r"beta=0.0: expected in \(0, 1\)"),
        ({"beta": 1.0}, "beta=1.0"),
        ({"wrap_probability": 0.0}, "wrap_probability=0.0"),
        ({"bits": 9}, r"bits=9: expected in \[10, 63\] for cohort=8, length=100"),
        ({"bits": 10, "cohort": 500}, r"bits=10: expected in \[11, 63\] for cohort=500"),
        ({"bits": 64}, "bits=64"),
        ({"bits": 60, "noise_multiplier": 1e-6}, "bits=60: expected fewer: the clip has"),
    ],
)
def test_bad_parameters_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        noise(**changes)


def test_bad_inputs_are_named():
    dp = noise()
    with pytest.raises(ConfigError, match=r"update=shape \(99,\): expected shape \(100,\)"):
        dp.encode(np.zeros(99), SEED)
    with pytest.raises(ConfigError, match=r"total=shape \(100,\): expected shape \(128,\)"):
        dp.decode(np.zeros(100, dtype=np.int64), SEED)
    with pytest.raises(ConfigError, match="key=3 bytes"):
        dp.encode(np.zeros(100), b"abc")
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ProtocolError, match="cannot be encoded"):
            dp.encode(np.r_[value, np.zeros(99)], SEED)
