"""Sums of ciphertexts are exact, and their error before rounding stays below its bound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmia.errors import ConfigError
from fedmia.secagg.ckks import Ckks, _context, _keyless, _unpack, new_key, pack
from fedmia.secagg.codec import Codec
from fedmia.secagg.errors import ProtocolError

KEY = new_key()


def some_words(codec, length, generator, extreme=False):
    largest = codec.levels * codec.max_weight
    integers = generator.integers(-largest, largest + 1, length)
    if extreme:
        integers = np.where(integers < 0, -largest, largest)
    return integers.astype(np.int64).astype(codec.dtype)


def added(cipher, vectors):
    total = None
    for words in vectors:
        total = cipher.add(total, cipher.encrypt(KEY, words), len(words))
    return pack(total)


@settings(max_examples=8, deadline=None)
@given(
    clients=st.integers(1, 6),
    length=st.sampled_from([1, 5, 4096, 4097, 9000]),
    bits=st.integers(2, 20),
    max_weight=st.sampled_from([1, 1000]),
    seed=st.integers(0, 99),
)
def test_sums_are_exact(clients, length, bits, max_weight, seed):
    codec, generator = Codec(6, bits=bits, max_weight=max_weight), np.random.default_rng(seed)
    cipher = Ckks(codec)
    vectors = [some_words(codec, length, generator) for _ in range(clients)]

    found = cipher.decrypt(KEY, added(cipher, vectors).tobytes())

    assert found.dtype == codec.dtype
    assert np.array_equal(found[:length], sum(vectors))
    assert not found[length:].any()


@pytest.mark.parametrize("cohort", [10, 1000])
def test_the_error_before_rounding_is_within_its_bound_and_not_far_from_it(cohort):
    codec, generator = Codec(cohort), np.random.default_rng(0)
    cipher = Ckks(codec)
    vectors = [some_words(codec, 4096, generator, extreme=True) for _ in range(10)]

    (block,) = _unpack(_context(KEY), added(cipher, vectors))
    error = np.array(block.decrypt()) - sum(codec.signed(v).astype(np.int64) for v in vectors)

    worst = np.abs(error).max()
    assert cipher.error_bound / 1000 < worst < cipher.error_bound


def test_the_bound_is_the_one_that_is_stated():
    assert Ckks(Codec(10)).error_bound == pytest.approx(2.16e-5, rel=0.01)
    assert Ckks(Codec(10)).scale == 2.0**29


def test_a_ciphertext_has_32_bytes_a_coordinate():
    codec = Codec(10)
    cipher = Ckks(codec)
    encrypted = cipher.encrypt(KEY, some_words(codec, 40_960, np.random.default_rng(0)))

    assert encrypted.shape == (cipher.size(40_960),)
    assert 32 <= encrypted.nbytes / 40_960 < 32.2


def test_equal_words_have_unlike_ciphertexts():
    codec = Codec(10)
    cipher, words = Ckks(codec), np.zeros(10, codec.dtype)

    assert np.mean(cipher.encrypt(KEY, words) == cipher.encrypt(KEY, words)) < 0.05


def test_what_was_tampered_with_or_has_another_key_is_refused():
    codec = Codec(10)
    cipher = Ckks(codec)
    encrypted = cipher.encrypt(KEY, some_words(codec, 10, np.random.default_rng(0)))
    changed = encrypted.copy()
    changed[2000] ^= 1 << 24

    with pytest.raises(ProtocolError, match="other key, or tampered"):
        cipher.decrypt(KEY, changed.tobytes())
    with pytest.raises(ProtocolError, match="other key, or tampered"):
        cipher.decrypt(new_key(), encrypted.tobytes())
    for garbled in (np.zeros_like(encrypted), np.full_like(encrypted, 2**32 - 1)):
        with pytest.raises(ProtocolError, match=r"^a ciphertext "):
            cipher.decrypt(KEY, garbled.tobytes())
        with pytest.raises(ProtocolError, match=r"^a ciphertext "):
            cipher.add(None, garbled, 10)
    for short in (b"", encrypted.tobytes()[:-1]):
        with pytest.raises(ProtocolError, match=r"bytes: expected a multiple of 131584"):
            cipher.decrypt(KEY, short)
    with pytest.raises(ProtocolError, match=r"expected 65792 of uint32"):
        cipher.add(None, encrypted, 5000)


def test_a_block_that_cannot_be_read_leaves_the_sum_as_it_was():
    codec, generator = Codec(10), np.random.default_rng(0)
    cipher = Ckks(codec)
    one, two = (some_words(codec, 5000, generator) for _ in range(2))
    total = cipher.add(None, cipher.encrypt(KEY, one), 5000)
    spoilt = cipher.encrypt(KEY, two)
    spoilt[len(spoilt) // 2 :] = 0

    with pytest.raises(ProtocolError, match="a ciphertext"):
        cipher.add(total, spoilt, 5000)

    assert np.array_equal(cipher.decrypt(KEY, pack(total).tobytes())[:5000], one)


def test_a_sum_that_would_not_come_out_exact_is_refused():
    with pytest.raises(ConfigError, match=r"^protocol.max_weight=1000: expected less"):
        Ckks(Codec(10, bits=32))


def test_a_count_of_clipped_coordinates_that_is_too_large_is_refused():
    codec = Codec(4, bits=2, max_weight=1)
    words = codec.encode({"w": np.full(2, 9.0, np.float32)}, {}, 1)

    with pytest.raises(ProtocolError, match="more clipped coordinates than fit"):
        Ckks(codec).encrypt(KEY, words)


def test_what_is_no_secret_key_is_refused():
    codec = Codec(10)
    for key in (b"no key", b"", _keyless().serialize()):
        with pytest.raises(ProtocolError, match="bytes: expected a secret key"):
            Ckks(codec).encrypt(key, np.zeros(10, codec.dtype))
