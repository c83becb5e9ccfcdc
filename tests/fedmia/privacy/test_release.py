import math

import pytest

from fedmia.errors import ConfigError
from fedmia.privacy.release import Release, Sampled, Sampling, composed, gaussian_release

TENTH = Sampling("poisson", rate=0.1)
FIVE_OF_TEN = Sampling("fixed", sample=5, population=10)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "shuffled"}, "kind=shuffled: expected one of poisson, fixed, all"),
        ({"kind": "poisson", "rate": 0}, r"rate=0: expected in \(0, 1\]"),
        ({"kind": "poisson", "rate": 1.5}, r"rate=1.5: expected in \(0, 1\]"),
        ({"kind": "fixed", "sample": 3}, "population=0: expected ≥ 1"),
        ({"kind": "fixed", "sample": 0, "population": 9}, r"sample=0: expected in \[1, pop"),
        ({"kind": "fixed", "sample": 10, "population": 9}, r"sample=10: expected in \[1, pop"),
    ],
)
def test_a_sampling_out_of_range_is_told_in_one_line(values, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**values)


@pytest.mark.parametrize("z", [-1.0, math.nan])
def test_a_negative_or_undefined_noise_multiplier_is_refused(z):
    with pytest.raises(ConfigError, match="noise_multiplier="):
        gaussian_release(z)


def test_the_fraction_is_the_chance_of_one_unit_to_take_part():
    assert Sampling().fraction == 1
    assert TENTH.fraction == 0.1
    assert FIVE_OF_TEN.fraction == 0.5


def test_releases_about_everybody_add_their_inverse_squares():
    together = composed(gaussian_release(2.0), gaussian_release(0.5), times=3)
    assert together == Release(precision=3 * (0.25 + 4))


def test_equal_sampled_releases_are_counted_and_others_kept_apart():
    a, b = gaussian_release(1.0, TENTH), gaussian_release(1.0, FIVE_OF_TEN)
    together = composed(a, composed(a, b, times=2), gaussian_release(2.0))
    assert together.precision == 0.25
    assert together.sampled == (Sampled(1.0, TENTH, 3), Sampled(1.0, FIVE_OF_TEN, 2))
    assert together.kinds == {"poisson", "fixed"}


@pytest.mark.parametrize(
    "sampling", [Sampling("poisson", rate=1), Sampling("fixed", sample=4, population=4)]
)
def test_sampling_everybody_is_no_sampling(sampling):
    assert gaussian_release(3.0, sampling) == gaussian_release(3.0)


def test_no_noise_stays_noiseless_whatever_the_sampling_and_infinite_noise_releases_nothing():
    assert gaussian_release(0.0, TENTH).noiseless
    assert composed(gaussian_release(1.0), gaussian_release(0)).noiseless
    assert gaussian_release(math.inf, TENTH) == Release()
    assert composed(gaussian_release(0.0), times=0) == Release()


def test_a_negative_count_is_refused():
    with pytest.raises(ConfigError, match="times=-1: expected ≥ 0"):
        composed(gaussian_release(1.0), times=-1)


def test_leaving_sampling_aside_each_release_is_about_everybody():
    release = composed(gaussian_release(2.0, TENTH), gaussian_release(3.0, FIVE_OF_TEN), times=4)
    both = composed(release, gaussian_release(4.0))
    assert both.unsampled.sampled == ()
    assert both.unsampled.precision == pytest.approx(4 / 4 + 4 / 9 + 1 / 16)
    assert gaussian_release(2.0).unsampled == gaussian_release(2.0)
    assert gaussian_release(0.0).unsampled.noiseless
