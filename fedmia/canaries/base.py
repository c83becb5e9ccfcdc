"""Canary records: held-out ones that are changed, and put in by the toss of a coin each."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fedmia.errors import expect
from fedmia.records import Examples

_FEWEST = 20


@dataclass(frozen=True, kw_only=True)
class CanaryRecords(ABC):
    """What held-out records are made into before some of them are trained on.

    Subclasses are frozen dataclasses; they implement :meth:`plant`.

    Attributes
    ----------
    count
        m, at least 20.
    """

    count: int = 100

    def __post_init__(self) -> None:
        expect(self.count >= _FEWEST, "count", self.count, f"at least {_FEWEST}")

    @abstractmethod
    def plant(
        self,
        records: Examples,
        others: Examples,
        model: nn.Module,
        num_classes: int,
        rng: np.random.Generator,
    ) -> Examples:
        """Return the canaries that these records become, in their order.

        No coin has fallen yet: what a canary looks like must say nothing about whether it is in.

        Parameters
        ----------
        records
            The m records that are made into canaries.
        others
            Held-out records that are not, the adversary's own.
        model
            The initial one.
        num_classes
            C.
        rng
            Source of all draws.
        """


def other_labels(
    labels: NDArray[np.int64], num_classes: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return for each label, shape (n,), one of the C − 1 others, uniformly."""
    return (labels + rng.integers(1, num_classes, size=labels.size)) % num_classes
