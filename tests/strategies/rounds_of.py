"""Updates of a round as rules read them."""

import numpy as np

from strategies.updates import Updates


def updates_of(rows, number=1, nodes=None, model=None, examples=None):
    """Return the updates ``rows`` (n, d) of nodes 10, 11, …"""
    matrix = np.array(rows, np.float32)
    n, d = matrix.shape
    return Updates(
        number,
        tuple(nodes or range(10, 10 + n)),
        matrix,
        np.array(examples or [1] * n, np.int64),
        np.zeros(d, np.float32) if model is None else np.asarray(model, np.float32),
        np.full(n, np.nan),
    )
