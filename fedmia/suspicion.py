"""What a strategy has against single clients: said by the strategy, kept by the result."""

from collections.abc import Mapping
from dataclasses import dataclass, field


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
