"""How good single updates of a round are, in [0, 1]: by the others, their past, and a root set.

Angles count, not lengths, and what points away counts as nothing. Every part is relative to the
median client: cosines fall for all alike while a model is trained.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from strategies.distances import Float64
from strategies.updates import Float32

_ITERATIONS = 10
"""Of Weiszfeld's algorithm, as in RFA."""
_NEAR = 1e-3
"""Distances below this share of the largest norm are lost in products of float32."""


def agreement(products: Float64, weights: Float64) -> Float64:
    """Return each update's cosine with the geometric median of the others, (n,), at least 0.

    The geometric median ``argmin_z Σ r_i·‖u_i − z‖`` (RFA, arXiv 1912.13445) stays near the honest
    clients while those that are not have less than half of the weight. It is a mean of the updates,
    so everything follows from inner products. An update's own share is taken out of it first: with
    few clients, noise would agree with itself.

    Parameters
    ----------
    products
        Inner products of all pairs, (n, n).
    weights
        ``r``, (n,), at least 0 and not all 0.
    """
    squares = np.diag(products)
    nearest = _NEAR * float(np.sqrt(squares[weights > 0].max())) or 1.0
    shares = _geometric_median(products, weights, nearest)
    towards = products @ shares
    inner = towards - shares * squares
    norms = shares @ towards - 2 * shares * towards + shares**2 * squares
    norms[norms < nearest**2] = 0.0  # the others cancel
    return _cosine(inner, squares, norms)


def consistency(matrix: Float32, histories: Sequence[Float32 | None]) -> Float64:
    """Return each update's cosine with its client's own history, (n,), at least 0; NaN without.

    Parameters
    ----------
    matrix
        The updates, (n, d).
    histories
        One a client, (d,).
    """
    found = np.full(len(matrix), np.nan)
    for place, (row, history) in enumerate(zip(matrix, histories, strict=True)):
        if history is not None and history.any():
            squares = np.array([np.dot(row, row), np.dot(history, history)], np.float64)
            found[place] = _cosine(np.dot(row, history), *squares)
    return found


def relative(values: Float64, voters: NDArray[np.bool_], least: float) -> Float64:
    """Return values as shares of the median voter's, (n,), in [0, 1].

    NaN where the median voter has less than ``least``, or nothing: then the round cannot tell who
    is good. Late in training, or where each client holds one class, honest clients pull each their
    own way, and to be unlike the others says nothing of a client.

    Parameters
    ----------
    values
        Cosines or gains, (n,), NaN where one was not measured.
    voters
        Whose median counts, (n,).
    least
        At least 0.
    """
    known = values[voters & ~np.isnan(values)]
    middle = float(np.median(known)) if len(known) else 0.0
    if not (middle > 0 and middle >= least):
        return np.full(len(values), np.nan)
    return np.asarray(np.clip(values / middle, 0.0, 1.0))


def combined(parts: Sequence[tuple[float, Float64]]) -> Float64:
    """Return the weighted geometric mean of each client's parts, (n,), NaN for one that has none.

    One bad part is enough: a client that always sends the opposite is as consistent as any.

    Parameters
    ----------
    parts
        Weight and values of each, (n,), NaN where one was not measured.
    """
    values = np.stack([part for _, part in parts])
    weights = np.where(np.isnan(values), 0.0, np.array([[weight] for weight, _ in parts]))
    with np.errstate(divide="ignore"):
        logs = np.log(np.where(weights > 0, values, 1.0))
    total = weights.sum(axis=0)
    mean = np.divide(
        (weights * logs).sum(axis=0), total, out=np.full(len(total), np.nan), where=total > 0
    )
    return np.asarray(np.exp(mean))


def evidence(parts: Mapping[str, Float64], place: int) -> dict[str, float]:
    """Return the parts of one client that were measured, by name."""
    return {name: float(v[place]) for name, v in parts.items() if not np.isnan(v[place])}


def _geometric_median(products: Float64, weights: Float64, nearest: float) -> Float64:
    """Return the shares, (n,), of the updates in it: Weiszfeld's algorithm."""
    squares = np.diag(products)
    shares = weights / weights.sum()
    for _ in range(_ITERATIONS):
        towards = products @ shares
        distances = np.sqrt(np.maximum(squares - 2 * towards + shares @ towards, 0.0))
        shares = weights / np.maximum(distances, nearest)
        shares /= shares.sum()
    return np.asarray(shares)


def _cosine(inner: Float64, squares: Float64, others: Float64) -> Float64:
    """Return ``max(0, inner / √(squares·others))``, 0 where a norm is."""
    scale = np.sqrt(np.maximum(squares, 0.0) * np.maximum(others, 0.0))
    found = np.divide(inner, scale, out=np.zeros_like(scale), where=scale > 0)
    return np.asarray(np.clip(found, 0.0, 1.0))
