"""Random rotation: it spreads an update evenly over its coordinates before these are rounded.

P. Kairouz, Z. Liu, T. Steinke, The Distributed Discrete Gaussian Mechanism for Federated Learning
with Secure Aggregation, ICML 2021 (arXiv 2102.06387), Algorithm 1:

    y = H_d D_ξ x

with public random signs ξ and the Walsh–Hadamard matrix H_d, whose entries are ±1/√d. For an x
that does not depend on ξ, each coordinate of y is sub-Gaussian with variance ‖x‖²/d.
"""

import numpy as np
from numpy.typing import NDArray

from fedmia.errors import expect
from fedmia.secagg.stream import key_stream

Floats = NDArray[np.float64]


def padded_length(length: int) -> int:
    """Return d, the smallest power of two that is at least ``length`` ≥ 1."""
    return 1 << (length - 1).bit_length()


def rotate(x: NDArray[np.floating], seed: bytes) -> Floats:
    """Return the rotated update, shape (d,), d = :func:`padded_length` of x.

    Parameters
    ----------
    x
        Shape (length,), length ≥ 1; zeros are appended.
    seed
        32 bytes, public: the same for all clients of a round, new in each round.

    Raises
    ------
    ConfigError
        If the seed is not 32 bytes long, or x is empty or not a vector.
    """
    expect(x.ndim == 1 and x.size > 0, "update", f"shape {x.shape}", "a vector, not empty")
    y = np.zeros(padded_length(x.size))
    y[: x.size] = x
    y *= _signs(seed, y.size)
    return _hadamard(y)


def unrotate(y: NDArray[np.floating], seed: bytes, length: int) -> Floats:
    """Return the update whose rotation is y: D_ξ H_d y without its padding, shape (length,).

    Raises ``ConfigError`` if the seed is not 32 bytes long or y has not d coordinates.
    """
    d = padded_length(length)
    expect(y.shape == (d,), "rotated", f"shape {y.shape}", f"shape ({d},) for {length} coordinates")
    x = _hadamard(y.astype(np.float64))
    x *= _signs(seed, d)
    return x[:length]


def _signs(seed: bytes, d: int) -> Floats:
    """Return ξ: bit i of the seed's key stream, lowest bit of a byte first, 1 for −1."""
    stream = np.frombuffer(key_stream(seed)(-(-d // 64)), dtype=np.uint8)
    return 1.0 - 2.0 * np.unpackbits(stream, count=d, bitorder="little").astype(np.float64)


def _hadamard(y: Floats) -> Floats:
    """Return H_d y; y is overwritten.

    H_d is the Kronecker product of a matrix on rows and one on columns: after a transposition
    all passes run over contiguous rows.
    """
    d = y.size
    square = y.reshape(1 << (d.bit_length() // 2), -1)
    _butterflies(square)
    turned = np.ascontiguousarray(square.T)
    _butterflies(turned)
    turned *= d**-0.5
    return turned.T.reshape(d)


def _butterflies(rows: Floats) -> None:
    """Multiply by the matrix of ±1 from the left in log2(len(rows)) passes, in place."""
    difference = np.empty((len(rows) // 2, rows.shape[1]))
    half = 1
    while half < len(rows):
        pairs = rows.reshape(-1, 2, half, rows.shape[1])
        low, high = pairs[:, 0], pairs[:, 1]
        scratch = difference.reshape(low.shape)
        np.subtract(low, high, out=scratch)
        low += high
        high[...] = scratch
        half *= 2
