"""Bulyan: Krum's choices one after another, then what most of them say of each coordinate.

E. M. El Mhamdi, R. Guerraoui, S. Rouault, "The Hidden Vulnerability of Distributed Learning in
Byzantium", ICML 2018.
"""

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedmia.errors import expect
from strategies.distances import Float64, centred, inner_products, squared_distances
from strategies.krum import scores
from strategies.robust import Robust
from strategies.updates import Float32, Updates

_BLOCK = 4096  # coordinates sorted together


class Bulyan(Robust):
    """Select θ = n − 2f updates, and average the β = θ − 2f closest to the median, by coordinate.

    Updates are selected one by one: Krum is asked about those that are left, and its choice leaves
    them. (Flower's rule of this name takes the θ best of one call, and does not ask for n ≥ 4f+3.)

    Needs n ≥ 4f + 3. Three passes over the updates, one product of n²·d multiplications, θ rounds
    of Krum on distances, and a sort of θ values a coordinate.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates.
    byzantine
        f, how many clients of a round may be anything.
    """

    def __init__(self, inner: Strategy, byzantine: int = 1) -> None:
        super().__init__(inner)
        expect(byzantine >= 0, "byzantine", byzantine, "at least 0")
        self.byzantine = byzantine
        self.fewest = 4 * byzantine + 3

    def check_asked(self, asked: int) -> None:
        """Refuse f for which ``asked < 4f + 3``."""
        most = (asked - 3) // 4
        limit = f"at most {most}" if most >= 0 else "more clients"
        allowed = f"{limit}: Bulyan needs 4·byzantine + 3 clients in a round, {asked} are asked"
        expect(self.byzantine <= most, "byzantine", self.byzantine, allowed)

    def combine(self, updates: Updates) -> NDArray[np.floating[Any]]:
        """Return the mean of the β values closest to the median of each coordinate, (d,)."""
        n, f = len(updates), self.byzantine
        centre = centred(updates)
        distances = squared_distances(inner_products(updates.matrix))
        chosen = np.sort(selected(distances, n - 2 * f, f))
        return np.asarray(centre + around_median(updates.matrix[chosen], n - 4 * f))


def selected(distances: Float64, count: int, byzantine: int) -> NDArray[np.int64]:
    """Return the ``count`` updates that Krum chooses one after another, in this order."""
    left, chosen = np.arange(len(distances)), []
    for _ in range(count):
        best = int(np.argmin(scores(distances[np.ix_(left, left)], byzantine)))
        chosen.append(left[best])
        left = np.delete(left, best)
    return np.array(chosen, np.int64)


def around_median(rows: Float32, count: int) -> Float32:
    """Return the mean of the ``count`` values closest to each column's median.

    Parameters
    ----------
    rows
        Values, (θ, d).
    count
        β, in 1..θ.
    """
    found = np.empty(rows.shape[1], np.float32)
    for start in range(0, rows.shape[1], _BLOCK):
        place = slice(start, start + _BLOCK)
        found[place] = _around_median(np.sort(rows[:, place].T, axis=1).T, count)
    return found


def _around_median(ordered: Float32, count: int) -> Float64:
    """Return the same of columns in ascending order: the closest are neighbours in them."""
    theta = len(ordered)
    median = (ordered[(theta - 1) // 2] + ordered[theta // 2]) / 2
    total = ordered[:count].sum(axis=0, dtype=np.float64)
    best, reach = total.copy(), np.maximum(median - ordered[0], ordered[count - 1] - median)
    for first in range(1, theta - count + 1):
        total += ordered[first + count - 1]
        total -= ordered[first - 1]
        worst = np.maximum(median - ordered[first], ordered[first + count - 1] - median)
        better = worst < reach
        best[better], reach[better] = total[better], worst[better]
    return np.asarray(best / count)
