import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmia.secagg.masks import _BLOCK, add_mask, expand, key_stream

SEED = hashlib.sha256(b"seed").digest()

# RFC 8439, Appendix A.1, vectors 1 and 2: the first two blocks under the zero key
ZERO_KEY_STREAM = bytes.fromhex(
    "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
    "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
    "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
)

UNSIGNED = [np.uint32, np.uint64]


def words_of(seed, length, size):
    """The mask in Python: the stream in one piece, read word by word."""
    stream = key_stream(seed).update(bytes(length * size))
    return [int.from_bytes(stream[i : i + size], "little") for i in range(0, len(stream), size)]


@pytest.mark.parametrize("dtype", UNSIGNED)
def test_the_zero_seed_gives_the_zero_key_stream_of_rfc_8439(dtype):
    size = np.dtype(dtype).itemsize
    mask = expand(bytes(32), 128 // size, dtype)
    assert b"".join(int(word).to_bytes(size, "little") for word in mask) == ZERO_KEY_STREAM
    assert mask.dtype == dtype


def test_words_are_little_endian():
    assert expand(bytes(32), 1, np.uint32)[0] == 0xADE0B876
    assert expand(bytes(32), 1, np.uint64)[0] == 0x903DF1A0ADE0B876


@pytest.mark.parametrize("dtype", UNSIGNED)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_the_sum_is_that_of_python_integers_at_the_borders_of_blocks(dtype, sign, more):
    size = np.dtype(dtype).itemsize
    length = 2 * _BLOCK // size + more
    words = np.arange(length, dtype=dtype) * dtype(0x9E3779B9)
    modulus = 1 << 8 * size
    mask = words_of(SEED, length, size)
    expected = [(int(w) + sign * m) % modulus for w, m in zip(words, mask, strict=True)]
    add_mask(words, SEED, sign)
    assert words.tolist() == expected


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(UNSIGNED), st.integers(0, 70_000), st.binary(min_size=32, max_size=32))
def test_a_mask_taken_away_again_leaves_the_words(dtype, length, seed):
    before = np.arange(length, dtype=dtype)
    words = before.copy()
    add_mask(words, seed, 1)
    assert length < 4 or (words != before).any()
    add_mask(words, seed, -1)
    assert (words == before).all()


def test_a_longer_mask_begins_as_a_shorter_one():
    whole = expand(SEED, 100_000, np.uint32)
    for length in (0, 1, 15, 16, 17, 32_768, 32_769):
        assert (expand(SEED, length, np.uint32) == whole[:length]).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u4", "u8"])
def test_the_mask_does_not_depend_on_the_byte_order_of_the_words(order, kind):
    values = np.arange(40_000)
    words, native = values.astype(order + kind), values.astype(kind)
    add_mask(words, SEED, -1)
    add_mask(native, SEED, -1)
    assert words.tolist() == native.tolist()


def test_a_view_with_steps_is_masked_in_place():
    base = np.zeros(80_000, np.uint32)
    add_mask(base[::2], SEED, 1)
    assert (base[::2] == expand(SEED, 40_000, np.uint32)).all()
    assert not base[1::2].any()


def test_opposite_masks_of_a_pair_cancel_in_the_sum():
    first, second = np.full(1000, 7, np.uint32), np.full(1000, 2**32 - 3, np.uint32)
    add_mask(first, SEED, 1)
    add_mask(second, SEED, -1)
    assert (first + second == 4).all()


def test_masks_of_two_seeds_share_no_more_words_than_chance():
    other = hashlib.sha256(SEED).digest()
    assert (expand(SEED, 100_000, np.uint32) == expand(other, 100_000, np.uint32)).sum() <= 2


def test_every_bit_of_a_mask_is_set_half_of_the_time():
    bits = np.unpackbits(expand(SEED, 40_000, np.uint32).view(np.uint8)).reshape(-1, 32)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(40_000)


@pytest.mark.parametrize(
    "words", [np.zeros(3), np.zeros(3, np.int64), np.zeros(3, np.uint16), np.zeros((3, 1), "u4")]
)
def test_words_of_another_type_or_shape_are_refused(words):
    with pytest.raises(ValueError, match=r"expected one row of uint32 or uint64"):
        add_mask(words, SEED, 1)


@pytest.mark.parametrize("sign", [0, 2, -2])
def test_another_sign_is_refused_before_a_word_changes(sign):
    words = np.zeros(3, np.uint32)
    with pytest.raises(ValueError, match=f"sign={sign}: expected 1 or -1"):
        add_mask(words, SEED, sign)
    assert not words.any()


@pytest.mark.parametrize("length", [0, 4, 16, 31, 33])
def test_a_seed_of_another_length_is_refused(length):
    with pytest.raises(ValueError, match="key"):
        expand(bytes(length), 3, np.uint32)
