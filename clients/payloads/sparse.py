"""A vector most of which is zero: which coordinates are not, and their values.

Layout: one byte that says how the coordinates are told, their number (4 bytes, little-endian), the
coordinates, and the values as float32. The coordinates are told by a bitmap, one bit each, or by
the gaps between them in the base-128 numbers of Protocol Buffers, whichever takes fewer bytes.
"""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

_BITMAP, _GAPS = 0, 1
_HEAD = struct.Struct("<BI")
_LOW = 7


def encode(index: NDArray[Any], values: Float32, size: int) -> bytes:
    """Return the bytes of a vector, (size,), that is zero but for ``values`` at ``index``.

    Parameters
    ----------
    index
        Coordinates, (k,), ascending.
    values
        What stands there, (k,).
    """
    gaps = _varints(np.diff(index, prepend=-1) - 1)
    kind, where = _GAPS, gaps
    if len(gaps) >= -(-size // 8):
        there = np.zeros(size, bool)
        there[index] = True
        kind, where = _BITMAP, np.packbits(there)
    return _HEAD.pack(kind, len(index)) + where.tobytes() + values.tobytes()


def decode(payload: bytes, size: int) -> Float32:
    """Return the vector, (size,), of which :func:`encode` made these bytes."""
    kind, count = _HEAD.unpack_from(payload)
    middle = len(payload) - 4 * count
    where = np.frombuffer(payload[_HEAD.size : middle], np.uint8)
    if kind == _BITMAP:
        index = np.flatnonzero(np.unpackbits(where, count=size))
    else:
        index = np.cumsum(_numbers(where) + 1) - 1
    vector = np.zeros(size, np.float32)
    vector[index] = np.frombuffer(payload, np.float32, count, middle)
    return vector


def _varints(numbers: NDArray[Any]) -> NDArray[np.uint8]:
    """Return numbers from 0 in groups of 7 bits, the low ones first; bit 8 says that more come."""
    length = np.ones(len(numbers), np.int64)
    rest = numbers >> _LOW
    while rest.any():
        length += rest > 0
        rest >>= _LOW
    start = np.cumsum(length) - length
    octets = np.empty(int(length.sum()), np.uint8)
    for place in range(int(length.max(initial=0))):
        long = length > place
        more = (length[long] > place + 1) << _LOW
        octets[start[long] + place] = (numbers[long] >> _LOW * place) & 127 | more
    return octets


def _numbers(octets: NDArray[np.uint8]) -> NDArray[np.int64]:
    last = np.flatnonzero(octets < 128)
    first = np.concatenate([[0], last[:-1] + 1])[: len(last)]
    place = np.arange(len(octets)) - np.repeat(first, last - first + 1)
    parts = (octets & 127).astype(np.int64) << _LOW * place
    return np.add.reduceat(parts, first) if len(first) else np.zeros(0, np.int64)
