"""Bring the columns of a table to one scale."""

import numpy as np
from numpy.typing import NDArray


def standardise(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``x`` (n, d) with mean 0 and standard deviation 1 in each column.

    The statistics are those of all n records, whether they become members or not: a scale from
    members alone would carry membership. A constant column becomes 0.
    """
    centred = x - x.mean(axis=0)
    scale = centred.std(axis=0)
    # what rounding leaves of a constant column is not a scale
    constant = scale <= 1e-12 * np.abs(x).max(axis=0, initial=0)
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, scale))
