"""Masks: the ChaCha20 key stream of a seed, added to or taken from a vector of words.

K. Bonawitz et al., Practical Secure Aggregation for Privacy-Preserving Machine Learning, CCS 2017:
PRG(s) of a 32-byte seed s, here the key stream of RFC 8439 under the key s with counter and nonce
zero, read as little-endian words. A seed must be used for one vector only: two vectors under the
same mask give away their difference.
"""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import DTypeLike, NDArray

Words = NDArray[np.uint32] | NDArray[np.uint64]

_BLOCK = 1 << 17  # bytes: zeros, stream and words of one block stay in a core's cache
_ZEROS = memoryview(bytes(_BLOCK))


def key_stream(seed: bytes) -> CipherContext:
    """Return the stream of ``seed`` (32 bytes): ``update(bytes(n))`` gives its next n bytes.

    Raises
    ------
    ValueError
        If ``seed`` does not have 32 bytes.
    """
    return Cipher(ChaCha20(seed, nonce=bytes(16)), mode=None).encryptor()


def add_mask(words: Words, seed: bytes, sign: int) -> None:
    """Add the mask of ``seed`` to ``words`` in place, modulo 2^32 or 2^64.

    Parameters
    ----------
    words
        Shape (length,), uint32 or uint64 of any byte order; changed.
    seed
        32 bytes.
    sign
        +1 adds the mask, -1 takes the same mask away again.

    Raises
    ------
    ValueError
        If ``words`` is of another type or shape, ``sign`` of another value, or ``seed`` of another
        length.
    """
    if words.ndim != 1 or words.dtype.kind != "u" or words.itemsize not in (4, 8):
        raise ValueError(f"words={words.dtype}{words.shape}: expected one row of uint32 or uint64")
    if sign not in (1, -1):
        raise ValueError(f"sign={sign}: expected 1 or -1")
    apply = np.add if sign == 1 else np.subtract
    stream, block = key_stream(seed), bytearray(_BLOCK)
    mask = np.frombuffer(block, words.dtype.newbyteorder("<"))
    for start in range(0, words.size, mask.size):
        part = words[start : start + mask.size]
        stream.update_into(_ZEROS[: part.nbytes], block)
        apply(part, mask[: part.size], out=part)


def expand(seed: bytes, length: int, dtype: DTypeLike) -> Words:
    """Return the mask of ``seed`` itself, shape (length,), uint32 or uint64.

    Raises as :func:`add_mask`.
    """
    mask: Words = np.zeros(length, dtype)
    add_mask(mask, seed, 1)
    return mask
