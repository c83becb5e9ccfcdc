"""A vector by the lowest coefficients of its cosine transform, as float32.

The transform is the orthonormal DCT-II, whose inverse is its transpose.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct

Float32 = NDArray[np.float32]


def transform(vector: Float32, kept: int) -> Float32:
    """Return the lowest coefficients, (kept,), of a vector, (d,)."""
    return np.asarray(dct(vector, norm="ortho")[:kept])


def encode(coefficients: Float32) -> bytes:
    """Return the bytes of coefficients; how many there are, both sides know."""
    return coefficients.tobytes()


def decode(payload: bytes, size: int) -> Float32:
    """Return the vector, (size,), that has these coefficients and zeros above them."""
    return np.asarray(idct(np.frombuffer(payload, np.float32), n=size, norm="ortho"))
