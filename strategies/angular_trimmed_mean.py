"""Angular trimmed mean: without the updates that point away from the others.

W. Mo, Z. Li, M. Fang, M. Fang, "Find a Scapegoat: Poisoning Membership Inference Attack and Defense
to Federated Learning", ICCV 2025, arXiv 2507.00423.
"""

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedmia.errors import expect
from strategies.distances import angles, inner_products
from strategies.robust import Robust
from strategies.updates import Updates


class AngularTrimmedMean(Robust):
    """Average the updates without the 2b whose mean angle to the others is largest.

    Lengths play no part: a client that scales an update in the common direction is averaged as it
    is. Needs n > 2b. Two passes over the updates, and one product of n²·d multiplications.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates.
    byzantine
        b, how many clients of a round may be anything.
    """

    def __init__(self, inner: Strategy, byzantine: int = 2) -> None:
        super().__init__(inner)
        expect(byzantine >= 0, "byzantine", byzantine, "at least 0")
        self.byzantine = byzantine
        self.fewest = 2 * byzantine + 1

    def check_asked(self, asked: int) -> None:
        """Refuse b for which ``asked ≤ 2b``."""
        most = (asked - 1) // 2
        allowed = f"at most {most}: twice as many are left out of the {asked} asked in a round"
        expect(self.byzantine <= most, "byzantine", self.byzantine, allowed)

    def combine(self, updates: Updates) -> NDArray[np.floating[Any]]:
        """Return the mean of the n − 2b updates that are left, (d,)."""
        away = angles(inner_products(updates.matrix)).sum(axis=1)
        kept = np.argsort(away, kind="stable")[: len(updates) - 2 * self.byzantine]
        return np.asarray(updates.matrix[np.sort(kept)].mean(axis=0))
