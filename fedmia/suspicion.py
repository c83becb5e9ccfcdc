"""What a strategy has against single clients: said by the strategy, kept by the result."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Flag:
    """A client whose update of one round was found suspicious, and by what.

    Parameters
    ----------
    round
        The server round.
    node_id
        Who sent the update.
    reason
        In a few words, e.g. ``the update is not finite``.
    evidence
        The figures behind it by name, all finite.
    isolated
        Whether the update was left out of the aggregate because of it.
    """

    round: int
    node_id: int
    reason: str
    evidence: Mapping[str, float] = field(default_factory=dict)
    isolated: bool = True


Groups = Mapping[int, Sequence[int]]
"""The nodes whose updates a strategy sees as one, by the node that they go under."""


def against_members(flags: Iterable[Flag], groups: Groups) -> list[Flag]:
    """Return the flags with one against each node of a group in the place of the group's."""
    found = []
    for flag in flags:
        if group := groups.get(flag.node_id):
            reason = f"the sum of its group of {len(group)}: {flag.reason}"
            found += [replace(flag, node_id=node, reason=reason) for node in group]
        else:
            found.append(flag)
    return found
