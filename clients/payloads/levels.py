"""A vector on a few levels: the norm of each bucket of coordinates, and a small integer for each.

Layout: the norms as float32, then the integers ``level + s`` from 0 to 2s in as few bits as the
largest takes, eight of them in as many bytes as one has bits.
"""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

MOST = 127
"""The largest s: an integer has at most eight bits."""


def encode(norms: Float32, levels: Float32, s: int) -> bytes:
    """Return the bytes of norms, (buckets,), and of levels from −s to s, (d,), whole."""
    width = (2 * s).bit_length()
    groups = np.zeros((-(-len(levels) // 8), 8), np.uint8)
    np.add(levels, s, out=groups.reshape(-1)[: len(levels)], casting="unsafe")
    words = np.zeros(len(groups), np.uint64)
    for place in range(8):
        words |= groups[:, place].astype(np.uint64) << np.uint64(width * place)
    packed = words.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)[:, :width]
    return norms.tobytes() + packed.tobytes()


def decode(payload: bytes, size: int, s: int, bucket: int) -> Float32:
    """Return the vector, (size,): of each coordinate, its bucket's norm times ``level / s``."""
    width, buckets = (2 * s).bit_length(), -(-size // bucket)
    norms = np.frombuffer(payload, np.float32, buckets)
    packed = np.frombuffer(payload, np.uint8, offset=norms.nbytes).reshape(-1, width)
    octets = np.zeros((len(packed), 8), np.uint8)
    octets[:, :width] = packed
    words = octets.view("<u8").reshape(-1)
    levels = np.empty((len(words), 8), np.float32)
    mask = np.uint64(2**width - 1)
    for place in range(8):
        levels[:, place] = (words >> np.uint64(width * place)) & mask
    padded = np.zeros(buckets * bucket, np.float32)
    np.subtract(levels.reshape(-1)[:size], s, out=padded[:size])
    padded.reshape(buckets, bucket)[...] *= (norms / np.float32(s))[:, None]
    return padded[:size]
