"""Sums of encrypted integers: CKKS with the result rounded, so that it is exact.

J. H. Cheon, A. Kim, M. Kim, Y. Song, "Homomorphic Encryption for Arithmetic of Approximate
Numbers", ASIACRYPT 2017, as Microsoft SEAL has it behind the ``tenseal`` package. A ciphertext
holds N/2 = 4,096 integers in two polynomials of N = 8,192 coefficients modulo a prime of 60 bits;
with the second prime, which encryption does not use, log q = 120 of the 218 bits that 128-bit
security allows at this N (M. Albrecht et al., "Homomorphic Encryption Security Standard", 2018).
Nothing is multiplied, so that the scale Δ takes all that the sum leaves of the modulus.

What is decrypted is rounded to integers, and only these are given away: an approximate decryption
tells the noise of a ciphertext, and with it the secret key (B. Li, D. Micciancio, "On the Security
of Homomorphic Encryption on Approximate Numbers", EUROCRYPT 2021).

Encryption is with the secret key, which all clients have; the server adds without any key.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmia.errors import expect
from fedmia.secagg.codec import Codec, Words
from fedmia.secagg.errors import ProtocolError

Blocks = list[Any]
"""A ciphertext as ``tenseal`` holds it: a vector of 4,096 slots each."""

_DEGREE = 8192
_SLOTS = _DEGREE // 2
_PRIMES = (60, 60)
_ROOM_BITS = 58
"""Of the modulus, for the scaled sum and its sign."""
_SIGMA = 3.2
"""Standard deviation of the error of a fresh ciphertext's coefficients, as SEAL draws it."""
_DEVIATIONS = 12
_BLOCK = 2 * _DEGREE * 8 + 512
"""Bytes that one ciphertext takes on the wire: two polynomials and a header, padded."""
_LENGTH = 4
_MOST_OFF = 0.25


def require() -> None:
    """Raise ``ConfigError`` unless the extra ``he`` is installed."""
    try:
        import tenseal  # noqa: F401
    except ImportError:
        expect(False, "tenseal", "missing", "the extra 'he': pip install 'fedmia[he]'")


def new_key() -> bytes:
    """Return a fresh secret key with its parameters, some 131 kB as ``tenseal`` serialises it."""
    return bytes(_fresh().serialize(save_public_key=False, save_secret_key=True))


class Ckks:
    """Encrypt, add and decrypt the words of a codec.

    A coordinate costs 32 bytes, eight times a float32 and eight or four times a word under a mask.
    The error before rounding is below ``error_bound`` except with a probability of 2⁻¹⁰³ a
    coordinate (twelve standard deviations of a sum of Gaussian errors); with ten clients and the
    default codec the bound is 2.2·10⁻⁵, and 5.3·10⁻⁶ was measured at 85,000 coordinates.

    Parameters
    ----------
    codec
        Makes the integers.

    Raises
    ------
    ConfigError
        If the sum of a cohort is too large to come out exact.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        bound, largest = self.error_bound, codec.largest_sum.bit_length()
        allowed = (
            f"less (or fewer bits): an integer of {largest} bits could come out {bound:.1g} off"
        )
        expect(bound <= _MOST_OFF, "protocol.max_weight", codec.max_weight, allowed)

    @property
    def scale(self) -> float:
        """Δ, a power of two."""
        return float(2.0 ** (_ROOM_BITS - self.codec.largest_sum.bit_length()))

    @property
    def error_bound(self) -> float:
        """Largest error of an integer of the sum before it is rounded.

        A slot is a sum of N coefficients times roots of unity: the errors of a cohort have a
        standard deviation of at most σ √(N · cohort) / Δ there. Double precision adds its own.
        """
        noise = _SIGMA * np.sqrt(_DEGREE * self.codec.cohort) / self.scale
        return float(_DEVIATIONS * noise + self.codec.largest_sum * 2.0**-48)

    def size(self, length: int) -> int:
        """Return how many words of 32 bits hold the ciphertext of so many integers."""
        return -(-length // _SLOTS) * _BLOCK // 4

    def encrypt(self, key: bytes, words: Words) -> NDArray[np.uint32]:
        """Return the ciphertext of words, shape (length,), as shape (size(length),).

        Raises
        ------
        ProtocolError
            If the count of clipped coordinates does not fit, or the key is none.
        """
        import tenseal as ts

        integers = self.codec.signed(words).astype(np.float64)
        if np.abs(integers).max(initial=0) * self.codec.cohort > self.codec.largest_sum:
            raise ProtocolError("more clipped coordinates than fit; expected a larger max_weight")
        context, slots = _context(key), np.zeros(_SLOTS)
        blocks = []
        for start in range(0, len(integers), _SLOTS):
            part = integers[start : start + _SLOTS]
            slots[: len(part)], slots[len(part) :] = part, 0
            blocks.append(ts.ckks_vector(context, slots, scale=self.scale))
        return pack(blocks)

    def add(self, total: Blocks | None, ciphertext: NDArray[Any], length: int) -> Blocks:
        """Add the ciphertext of so many integers to a sum, ``None`` at first; takes no key.

        Raises
        ------
        ProtocolError
            If it is none, or cannot be read; the sum is as before.
        """
        if ciphertext.dtype != np.uint32 or ciphertext.shape != (self.size(length),):
            found = f"{ciphertext.shape} words of {ciphertext.dtype}"
            raise ProtocolError(f"{found}: expected {self.size(length)} of uint32")
        blocks = _unpack(_keyless(), ciphertext)
        if total is None:
            return blocks
        for sum_so_far, block in zip(total, blocks, strict=True):
            sum_so_far.add_(block)
        return total

    def decrypt(self, key: bytes, ciphertext: bytes) -> Words:
        """Return the words that a sum stands for, with zeros up to a multiple of 4,096.

        Raises
        ------
        ProtocolError
            If it is none of integers: another key, or a ciphertext that was tampered with.
        """
        if not ciphertext or len(ciphertext) % _BLOCK:
            found = len(ciphertext)
            raise ProtocolError(f"{found} bytes: expected a multiple of {_BLOCK}, a ciphertext's")
        blocks = _unpack(_context(key), np.frombuffer(ciphertext, np.uint32))
        values = np.concatenate([np.array(block.decrypt()) for block in blocks])
        integers = np.rint(values)
        off = float(np.abs(values - integers).max())
        most = float(np.abs(integers).max())
        if not (off <= self.error_bound and most <= self.codec.largest_sum):
            raise ProtocolError("a decrypted sum is not one of integers: other key, or tampered")
        words: Words = integers.astype(np.int64).astype(self.codec.dtype)
        return words


def _fresh() -> Any:
    import tenseal as ts

    kind = ts.ENCRYPTION_TYPE.SYMMETRIC
    return ts.context(ts.SCHEME_TYPE.CKKS, _DEGREE, -1, list(_PRIMES), kind)


@lru_cache(maxsize=2)
def _context(key: bytes) -> Any:
    import tenseal as ts

    try:
        context = ts.context_from(key)
        usable = context.has_secret_key()
    except (ValueError, RuntimeError):
        usable = False
    if not usable:
        raise ProtocolError(f"{len(key)} bytes: expected a secret key as new_key makes it")
    return context


@lru_cache(maxsize=1)
def _keyless() -> Any:
    """Return the public parameters: enough to add."""
    import tenseal as ts

    return ts.context_from(_fresh().serialize(save_public_key=False, save_secret_key=False))


def pack(blocks: Blocks) -> NDArray[np.uint32]:
    """Return ciphertexts in blocks of one size: length, bytes, zeros."""
    packed = np.zeros((len(blocks), _BLOCK), np.uint8)
    for row, block in zip(packed, blocks, strict=True):
        data = block.serialize()
        framed = len(data).to_bytes(_LENGTH, "little") + data
        row[: len(framed)] = np.frombuffer(framed, np.uint8)
    return packed.reshape(-1).view(np.uint32)


def _unpack(context: Any, packed: NDArray[np.uint32]) -> Blocks:
    import tenseal as ts

    blocks: Blocks = []
    for row in packed.view(np.uint8).reshape(-1, _BLOCK):
        length = int.from_bytes(row[:_LENGTH].tobytes(), "little")
        try:
            block = ts.ckks_vector_from(context, row[_LENGTH : _LENGTH + length].tobytes())
            readable = block.size() == _SLOTS
        except (ValueError, RuntimeError) as error:
            raise ProtocolError(f"a ciphertext cannot be read ({error})") from None
        if not readable:
            raise ProtocolError(f"a ciphertext of {block.size()} slots: expected {_SLOTS}")
        blocks.append(block)
    return blocks
