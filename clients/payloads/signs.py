"""The signs of a vector and one size for all coordinates: a float32, then one bit a coordinate.

A bit has no third value: zero counts as positive.
"""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def encode(vector: Float32, scale: float) -> bytes:
    """Return the bytes of the signs of a vector, (d,), and of their size."""
    return np.float32(scale).tobytes() + np.packbits(vector >= 0).tobytes()


def decode(payload: bytes, size: int) -> Float32:
    """Return the vector, (size,), that is ``scale`` or ``-scale`` everywhere."""
    scale = np.frombuffer(payload, np.float32, 1)
    bits = np.unpackbits(np.frombuffer(payload, np.uint8, offset=4), count=size)
    return scale * (bits.astype(np.float32) * 2 - 1)
