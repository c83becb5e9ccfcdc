"""One bit a coordinate, and the size that all have."""

import numpy as np
import pytest

from clients.payloads import signs


def test_bits_by_hand():
    vector = np.array([3.0, -1.0, 0.0, -0.5, 2.0, -7.0, 1.0, 1.0, -1.0], np.float32)
    payload = signs.encode(vector, 0.25)
    assert payload == np.float32(0.25).tobytes() + bytes([0b10101011, 0b00000000])
    found = signs.decode(payload, 9)
    assert found.tolist() == [0.25, -0.25, 0.25, -0.25, 0.25, -0.25, 0.25, 0.25, -0.25]


@pytest.mark.parametrize("size", [1, 8, 9, 10_000])
def test_signs_come_back_in_an_eighth_of_a_byte_each(size):
    vector = np.random.default_rng(size).normal(size=size).astype(np.float32)
    payload = signs.encode(vector, 2.0)
    assert len(payload) == 4 + -(-size // 8)
    assert np.array_equal(signs.decode(payload, size), 2 * np.sign(vector))
