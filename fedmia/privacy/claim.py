"""What a part of the federation promises: to whom, about what, and by which account."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from fedmia.privacy.cost import Cost

Unit = Literal["client", "record"]

RELEASED = ("aggregate", "participant", "final_model")
"""Vantages of those who see models after the server has added its noise, and no update."""

EVERYBODY = ("server", *RELEASED)
"""All vantages: of noise that is in the update before it leaves the client."""


@dataclass(frozen=True)
class Setting:
    """What a part has to know of the rest in order to say what it promises.

    Parameters
    ----------
    records
        Number of records of each client, shape (clients,).
    rounds
        Of training, as configured.
    hidden
        The defence that shows the server sums only; empty if it sees updates.
    length
        Number of floating parameters of the model, which an update has.
    strategies
        What the strategies claim, of which a mod's own claim may be composed; empty while these
        are asked themselves.
    """

    records: tuple[int, ...]
    rounds: int
    hidden: str = ""
    length: int = 1
    strategies: tuple["Claim", ...] = ()

    @property
    def clients(self) -> int:
        """How many clients there are."""
        return len(self.records)


@dataclass(frozen=True)
class Claim:
    """A promise of differential privacy.

    Parameters
    ----------
    unit
        What neighbouring federations differ in: one client's whole data, or one record.
    account
        Gives ε after so many rounds; ``None`` where no ε can be given.
    holds_against
        Vantages from which the promise holds.
    per_participation
        Whether rounds are counted for each client, by its participations, or for all together.
    reasons
        The assumptions behind ε, or why there is none; a line each.
    secure
        Whether the noise comes from a secure source; seeded noise is for experiments.
    warnings
        What is allowed and weakens the promise, a line each; it begins with the key that is set.
    """

    unit: Unit
    account: Cost | None
    holds_against: tuple[str, ...]
    per_participation: bool = False
    reasons: tuple[str, ...] = ()
    secure: bool = False
    warnings: tuple[str, ...] = ()


@runtime_checkable
class Claiming(Protocol):
    """A strategy or a mod that promises something."""

    def claims(self, setting: Setting) -> list[Claim]:
        """Return what it promises in this setting."""


def large_delta(key: str, delta: float, units: int, named: str) -> tuple[str, ...]:
    """Return a warning where δ would allow giving away one unit at random, nothing elsewhere.

    Parameters
    ----------
    key
        The one that sets δ.
    delta
        δ.
    units
        How many clients or records there are at least.
    named
        What they are called, in the plural.
    """
    if delta < 1 / units:
        return ()
    return (f"{key}={delta:g} is not below 1/{named}={1 / units:.4g}",)
