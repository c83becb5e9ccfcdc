"""Clients divided into groups for a whole run, and a grid on which each group is one node."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from fedmia.errors import expect
from fedmia.seeding import generator


@dataclass(frozen=True)
class Grouping:
    """As few groups of at most ``group_size`` clients as there can be, drawn at random.

    Their sizes differ by one at most. The same nodes give the same groups, in any round.

    Parameters
    ----------
    group_size
        Most clients of a group.
    clients
        Of the federation.
    seed
        Of the draw.
    """

    group_size: int
    clients: int
    seed: int = 0

    def __post_init__(self) -> None:
        size, n = self.group_size, self.clients
        expect(size >= 3, "group_size", size, "at least 3 clients for a sum of others")
        allowed = f"less than {n}, the clients: one group takes no rule (strategy=secagg_plus)"
        expect(size < n, "group_size", size, allowed)
        allowed = f"one for which no group is smaller than 3; {n} clients make {self.groups} groups"
        expect(self.smallest >= 3, "group_size", size, f"{allowed} of {self.smallest} or more")

    @property
    def groups(self) -> int:
        """How many there are."""
        return -(-self.clients // self.group_size)

    @property
    def smallest(self) -> int:
        """The number of clients of the smallest."""
        return self.clients // self.groups

    def of(self, nodes: Iterable[int]) -> dict[int, tuple[int, ...]]:
        """Return the groups of these nodes, each ascending, by their first node, which names it."""
        ranked = sorted(nodes)
        order = generator(self.seed, "groups").permutation(len(ranked))
        found = [sorted(ranked[i] for i in order[g :: self.groups]) for g in range(self.groups)]
        return {members[0]: tuple(members) for members in sorted(found) if members}


class Heads(Grid):
    """A grid as a strategy sees it for which a group is one node; whoever asks asks the grid."""

    def __init__(self, grid: Grid, groups: Mapping[int, Sequence[int]]) -> None:
        self._grid, self._groups = grid, groups

    @cached_property
    def there(self) -> frozenset[int]:
        """The single nodes that are connected, looked up once."""
        return frozenset(self._grid.get_node_ids())

    def get_node_ids(self) -> Iterable[int]:
        """Return the names of the groups of which somebody is there."""
        return [head for head, group in self._groups.items() if not self.there.isdisjoint(group)]

    @property
    def run(self) -> Any:
        """Run information."""
        return self._grid.run

    def set_run(self, run: Any) -> None:
        """Set the run of the grid."""
        self._grid.set_run(run)

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Create a message with the grid."""
        return self._grid.create_message(*args, **kwargs)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuse: there is no group to be sent anything."""
        raise PermissionError("groups answer training alone")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refuse, as no message was sent."""
        raise PermissionError("groups answer training alone")

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Refuse: there is no group to be sent anything."""
        raise PermissionError("groups answer training alone")
