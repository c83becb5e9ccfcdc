"""Who watches a federation, and from where."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedmia.errors import ConfigError, expect
from fedmia.vantages import (
    VANTAGES,
    GroupedServer,
    MaskedServer,
    Participant,
    Server,
    Vantage,
    named,
)


@dataclass(frozen=True)
class Observer:
    """Who watches and what is kept.

    Parameters
    ----------
    vantage
        ``server``, ``aggregate``, ``participant`` or ``final_model``.
    participant
        Which client is the curious one (its number, from 0), for vantage ``participant``.
    keep_transcript
        Whether the transcript stays in the run directory after the attacks.
    """

    vantage: str = "server"
    participant: int = 0
    keep_transcript: bool = True

    def __post_init__(self) -> None:
        names = ", ".join(v.name for v in VANTAGES)
        expect(named(self.vantage) is not None, "vantage", self.vantage, f"one of {names}")
        expect(self.participant >= 0, "participant", self.participant, "at least 0")

    def stand(
        self, nodes: Mapping[int, int], hides_updates: str = "", in_groups: bool = False
    ) -> Vantage:
        """Return the vantage among these nodes (node id → client number).

        Parameters
        ----------
        nodes
            All clients.
        hides_updates
            The defence that keeps single updates from the server; empty if none does.
        in_groups
            Whether the server sees the sums of groups, and not only the sum of all.

        Raises
        ------
        ConfigError
            If the curious participant is not among the clients.
        """
        if self.vantage == Participant.name:
            for node_id, client in nodes.items():
                if client == self.participant:
                    return Participant(node_id)
            raise ConfigError(
                f"observer.participant={self.participant}: expected in 0..{len(nodes) - 1}"
            )
        if self.vantage == Server.name and hides_updates:
            return (GroupedServer if in_groups else MaskedServer)(hides_updates)
        return next(v() for v in VANTAGES if v.name == self.vantage)
