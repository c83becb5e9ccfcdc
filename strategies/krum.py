"""Krum and Multi-Krum: the updates that lie closest to their neighbours.

P. Blanchard, E. M. El Mhamdi, R. Guerraoui, J. Stainer, "Machine Learning with Adversaries:
Byzantine Tolerant Gradient Descent", NeurIPS 2017.
"""

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedmia.errors import expect
from strategies.distances import Float64, centred, inner_products, squared_distances
from strategies.robust import Robust
from strategies.updates import Updates


class Krum(Robust):
    """Average the updates with the smallest sums of squared distances to their neighbours.

    The neighbours of an update are the n − f − 2 closest others. Those selected count the same:
    Flower's rule of this name weighs them by the numbers of examples that clients state.

    Needs n ≥ 2f + 3. Three passes over the updates and one product of n²·d multiplications.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates.
    byzantine
        f, how many clients of a round may be anything.
    selected
        m, how many updates are averaged: 1 is Krum; ``None`` is Multi-Krum with n − f, the most
        that it allows.
    """

    def __init__(self, inner: Strategy, byzantine: int = 2, selected: int | None = 1) -> None:
        super().__init__(inner)
        expect(byzantine >= 0, "byzantine", byzantine, "at least 0")
        expect(selected is None or selected >= 1, "selected", selected, "null or at least 1")
        self.byzantine, self.selected = byzantine, selected
        self.fewest = 2 * byzantine + 3

    def check_asked(self, asked: int) -> None:
        """Refuse f for which ``asked < 2f + 3``, and m > n − f."""
        most = (asked - 3) // 2
        limit = f"at most {most}" if most >= 0 else "more clients"
        allowed = f"{limit}: Krum needs 2·byzantine + 3 clients in a round, {asked} are asked"
        expect(self.byzantine <= most, "byzantine", self.byzantine, allowed)
        most = asked - self.byzantine
        allowed = f"at most {most}, the clients asked in a round less byzantine={self.byzantine}"
        expect(self.selected is None or self.selected <= most, "selected", self.selected, allowed)

    def combine(self, updates: Updates) -> NDArray[np.floating[Any]]:
        """Return the mean of the m best, (d,)."""
        n = len(updates)
        centre = centred(updates)
        distances = squared_distances(inner_products(updates.matrix))
        most = n - self.byzantine
        best = np.argsort(scores(distances, self.byzantine), kind="stable")
        chosen = best[: min(self.selected or most, most)]
        return np.asarray(centre + updates.matrix[np.sort(chosen)].mean(axis=0))


def scores(distances: Float64, byzantine: int) -> Float64:
    """Return each update's sum of squared distances to its neighbours, (n,), small is good.

    Parameters
    ----------
    distances
        Squared, of all pairs, (n, n).
    byzantine
        f; an update has n − f − 2 neighbours, and one at least where there are others.
    """
    n = len(distances)
    neighbours = min(max(n - byzantine - 2, 1), n - 1)
    # The smallest of a row is its own, 0.
    return np.asarray(np.partition(distances, neighbours, axis=1)[:, : neighbours + 1].sum(axis=1))
