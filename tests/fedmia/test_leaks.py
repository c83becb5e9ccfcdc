"""Good masks are called good, and every planted leak is found."""

import numpy as np
import pytest

from fedmia.leaks import ENOUGH, LEVEL, check, check_words
from fedmia.masked import judged
from fedmia.records import MaskedInput, Observation
from fedmia.secagg.codec import Codec
from fedmia.secagg.masks import expand

CLIENTS, LENGTH = 6, 1500


def uniform(seed, clients=CLIENTS, length=LENGTH, dtype=np.uint32):
    rng, high = np.random.default_rng(seed), int(np.iinfo(dtype).max)
    return [rng.integers(0, high, length, dtype, endpoint=True) for _ in range(clients)]


def updates(seed=0, clients=CLIENTS, length=LENGTH, modulus_bits=32):
    """Return words as they are before any mask: 20 records each, coordinates around 0.01."""
    rng = np.random.default_rng(seed)
    codec = Codec(cohort=10, modulus_bits=modulus_bits)
    deltas = rng.normal(0, 0.01, (clients, length - 2)).astype(np.float32)
    return [codec.encode({"w": delta}, {}, 20) for delta in deltas]


def rounds_of(*rounds):
    return [
        Observation(t, {}, (), masked=tuple(MaskedInput(k, w) for k, w in enumerate(words)))
        for t, words in enumerate(rounds, start=1)
    ]


def p_values(found):
    return found["bit_p"], found["byte_p"], found["pair_p"]


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
@pytest.mark.parametrize(("clients", "length"), [(CLIENTS, LENGTH), (8, ENOUGH // 8)])
def test_uniform_words_are_called_a_leak_no_more_often_than_stated(clients, length, dtype):
    draws = 400
    found = [check_words(uniform(seed, clients, length, dtype)) for seed in range(draws)]

    assert sum(f["verdict"] != "uniform" for f in found) <= 1
    values = np.array([p_values(f) for f in found])
    for level in (0.2, 0.05, 0.01):
        allowed = level + 4 * np.sqrt(level * (1 - level) / draws)
        assert ((values <= level).mean(0) <= allowed).all(), level
    # neither test is so careful that it finds nothing
    assert ((values[:, :2] <= 0.2).mean(0) > 0.1).all()


def test_masks_of_the_protocol_hide_real_updates():
    rounds = [
        [w + expand(bytes([t, k]) * 16, len(w), np.uint32) for k, w in enumerate(updates(t))]
        for t in range(3)
    ]

    found = check(rounds_of(*rounds))

    assert found is not None
    assert found["verdict"] == "uniform"
    assert found["words"] == 3 * CLIENTS * LENGTH
    assert judged(found)[0] == "pass"
    assert judged(found)[1].startswith("27,000 masked words look uniform: p = ")


def leak(kind):
    good, bare = uniform(1), updates()
    if kind == "no mask":
        return bare
    if kind == "no mask at one client of six":
        return [bare[0], *good[1:]]
    if kind == "a constant for a mask":
        return [w + np.uint32(0x9E3779B9) for w in bare]
    if kind == "a 16-bit mask":
        return [w + (m >> 16) for w, m in zip(bare, good, strict=True)]
    if kind == "31-bit words":
        return [m >> 1 for m in good]
    if kind == "one mask for all":
        return [w + good[0] for w in bare]
    if kind == "one mask used twice":
        return [bare[0] + good[0], bare[1] + good[0], *good[2:]]
    if kind == "two masks that cancel":
        return [bare[0] + good[0], bare[1] - good[0], *good[2:]]
    raise AssertionError(kind)


@pytest.mark.parametrize(
    ("kind", "seen_by"),
    [
        ("no mask", {"bit_p", "byte_p"}),
        ("no mask at one client of six", {"bit_p", "byte_p"}),
        ("a constant for a mask", {"bit_p", "byte_p"}),
        ("a 16-bit mask", {"bit_p", "byte_p"}),
        ("31-bit words", {"bit_p", "byte_p"}),
        ("one mask for all", {"pair_p"}),
        ("one mask used twice", {"pair_p"}),
        ("two masks that cancel", {"pair_p"}),
    ],
)
def test_planted_leaks_are_found_by_the_tests_that_can_see_them(kind, seen_by):
    found = check_words(leak(kind))

    assert found["verdict"] == "not uniform"
    assert {name for name in seen_by if found[name] < LEVEL / 3} == seen_by  # type: ignore[literal-required]
    status, detail = judged(found)
    assert status == "fail"
    assert "do not look uniform" in detail


def test_a_mask_that_comes_back_in_a_later_round_is_found():
    first, second, bare = uniform(1), uniform(2), updates()
    masked = [*first[:3], bare[1] + first[3], *first[4:]]
    again = [bare[0] + first[3], *second[1:]]

    for rounds, verdict in (([masked, second], "uniform"), ([masked, again], "not uniform")):
        found = check(rounds_of(*rounds))
        assert found is not None
        assert found["verdict"] == verdict


def test_what_is_added_to_words_under_a_good_mask_is_no_leak():
    shifted = [w + np.uint32(12345) for w in uniform(3)]
    assert check_words(shifted)["verdict"] == "uniform"


def test_statistics_by_hand():
    """256 words 0 … 255: each value of the lowest byte once, the others always zero."""
    found = check_words([np.arange(256, dtype=np.uint32)])
    assert (found["words"], found["bit_p"], found["byte_p"], found["pair_p"]) == (
        256,
        0.0,
        0.0,
        1.0,
    )
    every = np.arange(256, dtype=np.uint32) * np.uint32(0x01010101)
    assert p_values(check_words([every])) == (1.0, 1.0, 1.0)


def test_few_words_are_not_judged_and_none_not_at_all():
    few = check_words([w[:10] for w in uniform(0)])
    assert few["verdict"] == "too few words"
    assert judged(few) == ("info", "60 masked words are too few to judge")
    assert check(rounds_of([], [])) is None
    assert check([]) is None
    assert check_words([np.zeros(0, np.uint32)])["verdict"] == "too few words"


def test_the_order_of_bytes_does_not_matter():
    words = leak("31-bit words")
    swapped = [w.astype(">u4") for w in words]
    assert p_values(check_words(swapped)) == p_values(check_words(words))
