"""Whether numbers fall into two clusters, and which is the upper one: gap statistic and 2-means."""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

_APART = 1e-6
"""Numbers that differ by less, relative to their mean, are alike to rounding."""


def upper_cluster(values: Float64, references: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which of n numbers are in the upper one of two clusters, (n,); none if there is one.

    With ``W_k`` the sum of squared distances to the means of k clusters, and ``W*_k`` those of
    uniform numbers, ``Gap(k) = mean(log W*_k) − log W_k``, and ``s_k`` the standard deviation of
    ``log W*_k`` times ``√(1 + 1/B)``, there is one cluster if ``Gap(1) ≥ Gap(2) − s_2``. Clusters
    are the best there are: on a line 2-means is a cut between neighbours, and all are tried.

    Parameters
    ----------
    values
        (n,). Fewer than three are one cluster.
    references
        B, how many times n uniform numbers are drawn between the least and the largest.
    rng
        Draws them.
    """
    spread = np.ptp(values) if len(values) else 0.0
    if len(values) < 3 or spread <= _APART * np.abs(values).mean():
        return np.zeros(len(values), np.bool_)
    scaled = np.sort((values - values.min()) / spread)
    uniform = np.sort(rng.random((references, len(values))), axis=1)
    one, two, cut = _within(scaled[None])
    ones, twos, _ = _within(uniform)
    with np.errstate(divide="ignore"):
        gaps = [np.log(s).mean() - np.log(w[0]) for s, w in ((ones, one), (twos, two))]
    deviation = np.log(twos).std() * np.sqrt(1 + 1 / references)
    if gaps[0] >= gaps[1] - deviation:
        return np.zeros(len(values), np.bool_)
    order = np.argsort(values, kind="stable")
    upper = np.zeros(len(values), np.bool_)
    upper[order[cut[0] :]] = True
    return upper


def _within(rows: Float64) -> tuple[Float64, Float64, NDArray[np.int64]]:
    """Return ``W_1``, ``W_2`` and the lower cluster's size of sorted rows (b, n), (b,) each."""
    n = rows.shape[1]
    count = np.arange(1, n)
    total, squares = rows.cumsum(axis=1), (rows**2).cumsum(axis=1)
    whole, all_squares = total[:, -1:], squares[:, -1:]
    lower = squares[:, :-1] - total[:, :-1] ** 2 / count
    rest = whole - total[:, :-1]
    upper = all_squares - squares[:, :-1] - rest**2 / (n - count)
    both = np.maximum(lower + upper, 0.0)
    cut = both.argmin(axis=1)
    one = (all_squares - whole**2 / n)[:, 0]
    return one, both[np.arange(len(rows)), cut], cut + 1
