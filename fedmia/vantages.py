"""Where an adversary stands: what is visible from there, and what can be asked about."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

from fedmia.records import KNOWLEDGE, Capability, Observation


class Vantage(ABC):
    """A place from which an adversary watches the federation."""

    name: ClassVar[str]
    shows: ClassVar[frozenset[Capability]]
    per_client: ClassVar[bool] = False
    """Whether its adversary can ask about one client's data, not only about everyone's."""

    every_round: ClassVar[bool] = False
    """Whether it sees what comes of every round as soon as the round is over."""

    contains: ClassVar[frozenset[str]] = frozenset()
    """The names of the vantages whose views can be cut out of what was recorded here."""

    hides_updates: str = ""
    """The defence that keeps single updates from whom they are sent to; empty if none does."""

    @abstractmethod
    def view(self, observation: Observation) -> Observation | None:
        """Return what is visible of a round; ``None`` if nothing is.

        The model after the last round is asked about as round 0, sent to nobody.
        """


@dataclass(frozen=True)
class Server(Vantage):
    """The honest-but-curious server: every model sent, every update as transmitted."""

    name = "server"
    shows = frozenset(Capability) - KNOWLEDGE
    per_client = True
    every_round = True
    contains = frozenset({"aggregate", "participant", "final_model"})

    def view(self, observation: Observation) -> Observation | None:
        """Return everything."""
        return observation


@dataclass(frozen=True)
class MaskedServer(Vantage):
    """The same server under secure aggregation: every model sent, masked words, their sum.

    Parameters
    ----------
    hides_updates
        The name of the defence.
    """

    hides_updates: str
    name = "server"
    shows = frozenset({Capability.GLOBAL_MODEL, Capability.MANY_ROUNDS})
    every_round = True
    contains = Server.contains

    def view(self, observation: Observation) -> Observation | None:
        """Return everything but updates."""
        return replace(observation, updates=())


@dataclass(frozen=True)
class GroupedServer(Vantage):
    """The same server where the sums are those of groups: it sees each group as one client.

    Parameters
    ----------
    hides_updates
        The name of the defence, within the groups.
    """

    hides_updates: str
    name = "server"
    shows = Server.shows
    per_client = True
    every_round = True
    contains = Server.contains

    def view(self, observation: Observation) -> Observation | None:
        """Return everything: the updates are those of groups."""
        return observation


@dataclass(frozen=True)
class Aggregate(Vantage):
    """Whoever sees all global models and so each round's sum, and nothing of single clients."""

    name = "aggregate"
    shows = frozenset({Capability.GLOBAL_MODEL, Capability.MANY_ROUNDS})
    every_round = True
    contains = frozenset({"final_model"})

    def view(self, observation: Observation) -> Observation | None:
        """Return the global model and the aggregate: not who was asked, nor what they sent."""
        return replace(observation, recipients=(), updates=(), masked=())


@dataclass(frozen=True)
class Participant(Vantage):
    """One client of the federation: ``w^t`` in the rounds in which it was sent one."""

    node_id: int
    name = "participant"
    shows = frozenset({Capability.GLOBAL_MODEL, Capability.MANY_ROUNDS})

    def view(self, observation: Observation) -> Observation | None:
        """Return the global model where this node received it."""
        if self.node_id not in observation.recipients:
            return None
        return Observation(observation.round, observation.params, (self.node_id,))


@dataclass(frozen=True)
class FinalModel(Vantage):
    """Anyone who gets the finished model: ``w^T`` and nothing else."""

    name = "final_model"
    shows = frozenset({Capability.GLOBAL_MODEL})

    def view(self, observation: Observation) -> Observation | None:
        """Return the model after the last round."""
        return observation if observation.round == 0 else None


@dataclass(frozen=True)
class ReleasedModel(Vantage):
    """Anyone who may ask the finished model: what a release lets out of its outputs, no weights."""

    name = "final_model"
    shows = frozenset({Capability.OUTPUTS})

    def view(self, observation: Observation) -> Observation | None:
        """Return the model after the last round: its outputs are asked for, it stays hidden."""
        return observation if observation.round == 0 else None


VANTAGES: tuple[type[Vantage], ...] = (Server, Aggregate, Participant, FinalModel)
"""One for each name; what secure aggregation makes of the server is not chosen, it follows."""


def named(name: str) -> type[Vantage] | None:
    """Return the vantage of this name, if there is one."""
    return next((v for v in VANTAGES if v.name == name), None)
