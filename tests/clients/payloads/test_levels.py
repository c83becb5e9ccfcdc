"""Levels in as few bits as the largest takes."""

import numpy as np
import pytest

from clients.payloads import levels


def test_three_levels_of_two_bits_by_hand():
    norms, rounded = np.array([2.0, 4.0], np.float32), np.array([1, -1, 0, 1, -1], np.float32)
    payload = levels.encode(norms, rounded, 1)
    # Codes 2, 0, 1, 2, 0 of two bits, the first in the lowest.
    codes = 2 + (0 << 2) + (1 << 4) + (2 << 6) + (0 << 8)
    assert payload == norms.tobytes() + codes.to_bytes(2, "little")
    assert levels.decode(payload, 5, 1, 3).tolist() == [2.0, -2.0, 0.0, 4.0, -4.0]


@pytest.mark.parametrize("s", [1, 2, 3, 7, 8, 15, 63, 64, levels.MOST])
@pytest.mark.parametrize(("size", "bucket"), [(1, 1), (17, 8), (1000, 512), (1024, 512)])
def test_levels_come_back(s, size, bucket):
    rng = np.random.default_rng(s)
    rounded = rng.integers(-s, s, size, endpoint=True).astype(np.float32)
    norms = rng.random(-(-size // bucket)).astype(np.float32)
    payload = levels.encode(norms, rounded, s)
    bits = int(np.ceil(np.log2(2 * s + 1)))
    assert len(payload) == 4 * len(norms) + -(-size // 8) * bits
    expected = np.repeat(norms, bucket)[:size] * rounded / np.float32(s)
    assert levels.decode(payload, size, s, bucket) == pytest.approx(expected, rel=1e-6)
