"""Unpredictable 64-bit words: a ChaCha20 key stream under a key of the operating system."""

import os
from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

from fedmia.errors import expect

Stream = Callable[[int], bytes]
"""``words(count)`` returns the next ``8 * count`` bytes of a stream of little-endian words."""


def key_stream(key: bytes) -> Stream:
    """Return the ChaCha20 key stream (RFC 8439) of a 32-byte key, with counter and nonce zero.

    Raises ``ConfigError`` if the key has another length.
    """
    expect(len(key) == 32, "key", f"{len(key)} bytes", "32 bytes")
    encryptor = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()

    def words(count: int) -> bytes:
        return encryptor.update(bytes(8 * count))

    return words


def fresh_stream() -> Stream:
    """Return the key stream of a new key from ``os.urandom``."""
    return key_stream(os.urandom(32))


def draw(words: Stream, count: int) -> NDArray[np.uint64]:
    """Return the next ``count`` words as integers, shape (count,)."""
    return np.frombuffer(words(count), dtype="<u8").astype(np.uint64, copy=False)
