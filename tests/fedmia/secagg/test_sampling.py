import math
from decimal import Context, Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import chisquare

from fedmia.errors import ConfigError
from fedmia.secagg.sampling import MAX_VARIANCE, DiscreteGaussian, Skellam
from fedmia.secagg.stream import key_stream

LAWS = [DiscreteGaussian, Skellam]
ONES = 2**64 - 1


def stream(number=0):
    return key_stream(number.to_bytes(32, "little"))


def scripted(*words):
    """Return a stream of these words and the list of those not yet drawn."""
    left = list(words)

    def take(count):
        assert count <= len(left), "more words drawn than expected"
        return b"".join(left.pop(0).to_bytes(8, "little") for _ in range(count))

    return take, left


def gaussian_pmf(variance, most):
    """Return P(0), … by Poisson's summation of the normaliser: Z = √(2πσ²) Σ exp(−2π²σ²k²)."""
    v = float(variance)
    theta = 1 + 2 * sum(math.exp(-2 * math.pi**2 * v * k**2) for k in range(1, 30))
    z = math.sqrt(2 * math.pi * v) * theta
    return np.exp(-(np.arange(most + 1) ** 2) / (2 * v)) / z


def skellam_pmf(variance, most):
    """Return P(0), … as the convolution of two Poisson laws: all P(X = j + k) P(Y = j)."""
    half = float(variance) / 2
    top = most + int(half + 20 * math.sqrt(half) + 40)
    log = [j * math.log(half) - half - math.lgamma(j + 1) for j in range(top + 1)]
    poisson = np.exp(log)
    return np.array([poisson[k:] @ poisson[: top + 1 - k] for k in range(most + 1)])


PMF = {DiscreteGaussian: gaussian_pmf, Skellam: skellam_pmf}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("variance", [Fraction(1, 3), 1, Fraction(17, 4), 400])
def test_the_table_holds_the_law(law, variance):
    table = law(variance).cumulative(63)
    p = PMF[law](variance, len(table) - 1)
    expected = np.cumsum(np.r_[p[0], 2 * p[1:]])
    np.testing.assert_allclose(np.array(table) / 2.0**63, expected, rtol=0, atol=1e-12)


def test_the_skellam_table_is_right_to_the_last_of_many_digits():
    # e^(−x) Σ_j (x/2)^(2j+k) / (j! (j+k)!) in exact fractions, but for the exponential
    x, bits = Fraction(7, 2), 300
    with localcontext(Context(prec=120)):
        scale = (-Decimal(7) / 2).exp() * 2**bits
        sums, total = [], Fraction(0)
        for k in range(6):
            series = sum(
                (x / 2) ** (2 * j + k) / (math.factorial(j) * math.factorial(j + k))
                for j in range(90)
            )
            total += series if k == 0 else 2 * series
            sums.append(int(scale * total.numerator / total.denominator))
    table = Skellam(x).cumulative(bits)[:6]
    assert all(exact - entry in (0, 1) for exact, entry in zip(sums, table, strict=True))


def test_the_gaussian_table_is_right_to_the_last_of_many_digits():
    bits = 300
    with localcontext(Context(prec=120)):
        weights = [(-Decimal(k * k) / 5).exp() for k in range(50)]
        scale = 2**bits / (weights[0] + 2 * sum(weights[1:]))
        sums = [int(scale * (weights[0] + 2 * sum(weights[1 : j + 1]))) for j in range(8)]
    table = DiscreteGaussian(Fraction(5, 2)).cumulative(bits)[:8]
    assert all(exact - entry in (0, 1) for exact, entry in zip(sums, table, strict=True))


@pytest.mark.parametrize("law", LAWS)
def test_tables_of_more_bits_continue_those_of_fewer(law):
    fewer, more = law(1000).cumulative(63), law(1000).cumulative(127)
    assert fewer[-1] >= 2**63 - 2
    assert len(more) > len(fewer)
    assert all((b >> 64) - a in (0, 1) for a, b in zip(fewer, more, strict=False))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("variance", [Fraction(1, 3), 4, 100])
def test_draws_follow_the_law(law, variance):
    size = 200_000
    draws = law(variance).sample(size, stream(1))
    assert draws.dtype == np.int64
    edge = int(3 * math.sqrt(variance)) + 1
    p = PMF[law](variance, edge)
    inner = np.r_[p[:0:-1], p]
    expected = size * np.r_[inner, 1 - inner.sum()]
    observed = [(draws == k).sum() for k in range(-edge, edge + 1)]
    observed.append((np.abs(draws) > edge).sum())
    assert chisquare(observed, expected).pvalue > 1e-3


@pytest.mark.parametrize("law", LAWS)
def test_moments_of_a_wide_law(law):
    size, std = 200_000, 1000
    draws = law(std**2).sample(size, stream(2)) / std
    assert abs(draws.mean()) < 4 / math.sqrt(size)
    assert np.mean(draws**2) == pytest.approx(1, abs=4 * math.sqrt(2 / size))
    assert np.mean(draws**4) == pytest.approx(3, abs=4 * math.sqrt(96 / size))


def test_the_fourth_moment_tells_the_two_laws_apart():
    # kurtosis 3 + 1/σ² for Skellam; for the discrete Gaussian 3 up to e^(−2π²σ²)
    size = 400_000
    excess = [np.mean(law(2).sample(size, stream(3)) ** 4.0) / 4 - 3 for law in LAWS]
    assert excess[0] == pytest.approx(0, abs=0.08)
    assert excess[1] == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("law", LAWS)
def test_draws_are_those_of_a_search_one_by_one(law):
    size = 400
    table = law(50).cumulative(63)
    expected = []
    for word in np.frombuffer(stream(4)(size), "<u8").tolist():
        j = next(j for j, entry in enumerate(table) if word >> 1 < entry)
        expected.append(-j if word & 1 else j)
    assert law(50).sample(size, stream(4)).tolist() == expected


@pytest.mark.parametrize("law", LAWS)
def test_the_lowest_bit_is_the_sign(law):
    words = stream(5)(5000)
    flipped = (np.frombuffer(words, "<u8") ^ np.uint64(1)).tobytes()
    draws = law(9).sample(5000, lambda _: words)
    np.testing.assert_array_equal(law(9).sample(5000, lambda _: flipped), -draws)
    assert (draws < 0).any()
    assert (draws > 0).any()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("j", [0, 3])
def test_a_draw_at_a_boundary_is_decided_by_further_bits(law, j):
    boundary = law(4).cumulative(63)[j]
    for further, expected in [(0, j), (ONES, j + 1)]:
        words, left = scripted(boundary << 1, further)
        assert law(4).sample(1, words).tolist() == [expected]
        assert left == []


@pytest.mark.parametrize("law", LAWS)
def test_a_draw_that_stays_at_the_boundary_is_refined_again(law):
    first = law(4).cumulative(63)[2]
    second = law(4).cumulative(127)[2] - (first << 64)
    for further, expected in [(0, -2), (ONES, -3)]:
        words, left = scripted(first << 1 | 1, second, further)
        assert law(4).sample(1, words).tolist() == [expected]
        assert left == []


@pytest.mark.parametrize("law", LAWS)
def test_a_draw_next_to_a_boundary_needs_no_more_than_it_must(law):
    boundary = law(4).cumulative(63)[0]
    for uniform, further, expected in [
        (boundary - 1, [], 0),
        (boundary + 1, [0], 1),
        (boundary + 1, [ONES], 1),
        (boundary + 2, [], 1),
    ]:
        words, left = scripted(uniform << 1, *further)
        assert law(4).sample(1, words).tolist() == [expected]
        assert left == []


def test_only_the_open_draws_of_a_batch_are_refined():
    boundary = Skellam(4).cumulative(63)[1]
    words, left = scripted(0, boundary << 1, 1, boundary << 1, ONES, 0)
    assert Skellam(4).sample(4, words).tolist() == [0, 2, 0, 1]
    assert left == []


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("full", [1, 2, 4])
def test_a_draw_of_the_far_tail_is_decided_there(law, full):
    # U = 1 − 2^−(64·full − 1): the first j with P(|k| > j) < that
    words, left = scripted(*[ONES] * full, 0)
    (draw,) = law(4).sample(1, words)
    assert left == []
    gap = 2.0 ** -(64 * full - 1)
    p = tail_pmf(law, 400)
    outside = [2 * math.fsum(p[j + 1 :]) for j in range(300)]
    assert -draw == next(j for j, mass in enumerate(outside) if mass < gap)
    assert -draw > 2 * 8


def tail_pmf(law, most):
    """Return P(k) for σ² = 4 without the cancellation of 1 − F, leading terms of the series."""
    if law is DiscreteGaussian:
        return gaussian_pmf(4, most)
    return [
        math.fsum(
            math.exp((2 * j + k) * math.log(2) - math.lgamma(j + 1) - math.lgamma(j + k + 1) - 4)
            for j in range(60)
        )
        for k in range(most + 1)
    ]


@pytest.mark.parametrize("law", LAWS)
def test_a_law_that_is_almost_always_zero(law):
    draws = law(Fraction(1, 10**6)).sample(1000, stream(6))
    assert np.count_nonzero(draws) == 0
    words, left = scripted(ONES, ONES, 0)  # 1 − U = 2^−127
    assert law(Fraction(1, 100)).sample(1, words)[0] < 0
    assert left == []


def test_the_two_laws_of_one_variance_keep_their_own_tables():
    draws = [law(4).sample(2000, stream(7)) for law in LAWS]
    assert not np.array_equal(*draws)
    np.testing.assert_array_equal(
        DiscreteGaussian(Fraction(8, 2)).sample(2000, stream(7)), draws[0]
    )


def test_bits_come_from_the_operating_system_by_default():
    assert not np.array_equal(Skellam(100).sample(50), Skellam(100).sample(50))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("variance", [0, -1, 0.5, MAX_VARIANCE + 1, Fraction(-1, 3)])
def test_a_variance_out_of_range_or_not_exact_is_refused(law, variance):
    with pytest.raises(ConfigError, match=r"variance=.*: expected an integer or a fraction in"):
        law(variance)
