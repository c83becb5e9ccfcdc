"""What every account can say: ε after so many rounds, and how many rounds a budget allows."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import StrEnum


class Neighbours(StrEnum):
    """What makes two federations neighbours: a unit more or less, or one that is another."""

    ADD_REMOVE = "add_remove"
    REPLACE_ONE = "replace_one"


class Cost(ABC):
    """ε as a function of the rounds; grows with them.

    ``neighbours`` and ``delta`` say what (ε, δ) is about; subclasses hold them as fields.
    """

    neighbours: Neighbours
    delta: float

    @property
    @abstractmethod
    def method(self) -> str:
        """The analysis that gives ε: ``PLD``, ``GDP`` (exact), ``RDP`` or ``zCDP``."""

    @abstractmethod
    def epsilon(self, rounds: int) -> float:
        """Return ε after so many rounds; 0 after none, ``inf`` where there is no noise."""

    @abstractmethod
    def epsilon_rdp(self, rounds: int) -> float | None:
        """Return ε by Rényi differential privacy; ``None`` where that does not cover it."""

    @abstractmethod
    def under(self, neighbours: Neighbours) -> "Cost | None":
        """Return the same mechanism's account for other neighbours; ``None`` if there is none."""

    def curve(self, rounds: Sequence[int]) -> list[float]:
        """Return ε after each of these numbers of rounds."""
        return [self.epsilon(count) for count in rounds]

    def affordable(self, budget: float, most: int) -> int:
        """Return the largest number of rounds, at most ``most``, whose ε is within the budget."""
        if most <= 0 or self.epsilon(most) <= budget:
            return max(most, 0)
        within, beyond = 0, most
        while beyond - within > 1:
            middle = (within + beyond) // 2
            if self.epsilon(middle) <= budget:
                within = middle
            else:
                beyond = middle
        return within
