"""The largest ε of several clients, each with an account of its own and a number of rounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from fedmia.errors import expect
from fedmia.privacy.cost import Cost, Neighbours


@dataclass(frozen=True)
class Capped:
    """An account of which no more than ``most`` rounds are ever spent; ``None``: any number."""

    account: Cost
    most: int | None = None

    def curve(self, rounds: Sequence[int]) -> list[float]:
        """Return ε after each of these numbers of rounds, of which only the first ones count."""
        return self.account.curve([min(count, self._limit(count)) for count in rounds])

    def epsilon_rdp(self, rounds: int) -> float | None:
        """Return the same by Rényi differential privacy."""
        return self.account.epsilon_rdp(min(rounds, self._limit(rounds)))

    def _limit(self, rounds: int) -> int:
        return rounds if self.most is None else self.most


class WorstOf(Cost):
    """max over clients of ε_n(min(t, m_n)): what t rounds cost whoever they cost most.

    Parameters
    ----------
    neighbours, delta
        Of all accounts.
    settled
        Returns those that differ, at least one; called once, and not before ε is asked for, since
        finding their noise may take seconds each.
    """

    def __init__(
        self, neighbours: Neighbours, delta: float, settled: Callable[[], Sequence[Capped]]
    ) -> None:
        self.neighbours, self.delta, self._settled = neighbours, delta, settled

    @cached_property
    def clients(self) -> tuple[Capped, ...]:
        """The clients.

        Raises
        ------
        ConfigError
            If there is none, or their neighbours or δ are others.
        """
        found = tuple(self._settled())
        expect(len(found) >= 1, "clients", len(found), "at least 1")
        alike = {(client.account.neighbours, client.account.delta) for client in found}
        allowed = f"accounts of {self.neighbours} and delta={self.delta}"
        expect(alike == {(self.neighbours, self.delta)}, "clients", len(found), allowed)
        return found

    @property
    def method(self) -> str:
        """Those of the clients, in order of their names."""
        return ", ".join(sorted({client.account.method for client in self.clients}))

    def epsilon(self, rounds: int) -> float:
        """Return the largest ε after so many rounds, 0 after none."""
        return self.curve([rounds])[0]

    def epsilon_rdp(self, rounds: int) -> float | None:
        """Return the largest by Rényi differential privacy; ``None`` where one is not covered."""
        found = [client.epsilon_rdp(rounds) for client in self.clients]
        known = [epsilon for epsilon in found if epsilon is not None]
        return max(known) if len(known) == len(found) else None

    def curve(self, rounds: Sequence[int]) -> list[float]:
        """Return the largest ε after each of these numbers of rounds."""
        curves = [client.curve(rounds) for client in self.clients]
        return [max(at) for at in zip(*curves, strict=True)]

    def under(self, neighbours: Neighbours) -> "WorstOf | None":
        """Return the worst of the same clients for other neighbours, if each one is known."""
        accounts = [client.account.under(neighbours) for client in self.clients]
        known = [account for account in accounts if account is not None]
        if len(known) < len(accounts):
            return None
        clients = [Capped(a, c.most) for a, c in zip(known, self.clients, strict=True)]
        return WorstOf(neighbours, self.delta, lambda: clients)
