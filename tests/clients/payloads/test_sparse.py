"""Bytes of sparse vectors: what is written is read again, in as few bytes as are counted here."""

import numpy as np
import pytest

from clients.payloads import sparse

HEAD = 5


def written(vector):
    index = np.flatnonzero(vector)
    return sparse.encode(index, vector[index], len(vector))


def naive_varint(number):
    octets = []
    while number >= 128:
        octets.append(number % 128 + 128)
        number //= 128
    return bytes([*octets, number])


def test_gaps_and_values_by_hand():
    vector = np.zeros(1000, np.float32)
    vector[[2, 3, 300]] = [1.0, -2.0, 0.5]
    # Gaps 2, 0 and 296 = 2 * 128 + 40.
    gaps = bytes([2, 0, 40 + 128, 2])
    values = np.array([1.0, -2.0, 0.5], np.float32).tobytes()
    assert written(vector) == bytes([1, 3, 0, 0, 0]) + gaps + values


def test_a_bitmap_where_it_is_smaller_by_hand():
    vector = np.array([0, 1, 2, 0, 3, 4, 5, 6, 7, 0], np.float32)
    payload = written(vector)
    assert payload[:HEAD] == bytes([0, 7, 0, 0, 0])
    assert payload[HEAD : HEAD + 2] == bytes([0b01101111, 0b10000000])
    assert len(payload) == HEAD + 2 + 4 * 7


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.1, 0.2, 0.9, 1.0])
@pytest.mark.parametrize("size", [1, 7, 8, 300, 40_000])
def test_what_is_written_is_read_again(size, share):
    rng = np.random.default_rng(size)
    vector = rng.normal(size=size).astype(np.float32) * (rng.random(size) < share)
    assert np.array_equal(sparse.decode(written(vector), size), vector)


@pytest.mark.parametrize("share", [0.0005, 0.05, 0.5])
def test_the_smaller_of_both_ways_is_taken(share):
    rng = np.random.default_rng(0)
    vector = (rng.random(30_000) < share).astype(np.float32)
    index = np.flatnonzero(vector)
    gaps = b"".join(map(naive_varint, np.diff(index, prepend=-1) - 1))
    payload = written(vector)
    assert len(payload) == HEAD + min(len(gaps), -(-len(vector) // 8)) + 4 * len(index)
    if len(gaps) < len(vector) / 8:
        assert payload[HEAD : HEAD + len(gaps)] == gaps
