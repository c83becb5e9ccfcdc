"""One coin a record, the same at every query and in any batch."""

import hashlib

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def coins(seed: int, x: Tensor) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each record (n, *input_shape), (n,), by its content and a key.

    Parameters
    ----------
    seed
        The key: who does not know it cannot tell the numbers from random ones.
    """
    key = seed.to_bytes(8, "little")
    rows = np.ascontiguousarray(x.cpu().numpy().reshape(len(x), -1))
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8, key=key).digest() for row in rows]
    whole = np.array([int.from_bytes(digest, "little") >> 11 for digest in digests], np.float64)
    return whole * 2.0**-53
