import pytest

from fedmia.audit.clip_quantile import clip_followed


def test_the_line_has_the_mean_of_the_last_half_and_the_target():
    assert clip_followed([0.5] * 15 + [0.9] * 15, 0.5, 0.0) == (
        "adaptive clip: 90% of updates were within the clip over the last 15 rounds, the target is "
        "50%: it does not follow the quantile (or training was too short)"
    )


def test_rounds_before_the_last_half_do_not_count():
    assert clip_followed([0.0] * 10 + [0.5] * 10, 0.5, 0.0) is None


def test_fewer_than_ten_rounds_say_nothing():
    assert clip_followed([1.0] * 9, 0.5, 0.0) is None
    assert clip_followed([1.0] * 10, 0.5, 0.0) is not None


@pytest.mark.parametrize(("noise", "told"), [(0.0, True), (0.15, True), (0.17, False)])
def test_noise_of_the_shares_is_allowed_for(noise, told):
    # 0.25 + 2·noise/√10 against a distance of 0.35
    assert (clip_followed([0.85] * 10, 0.5, noise) is not None) == told
