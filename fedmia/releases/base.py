"""What every release is: who has the model decides what is shown of its outputs."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from fedmia.errors import expect
from fedmia.records import Examples
from fedmia.signals.released import Guard
from fedmia.vantages import ReleasedModel


@dataclass(frozen=True, eq=False)
class Owner:
    """What who releases a model has: the model, the records it was trained on, and others.

    Parameters
    ----------
    model
        With its final weights, in evaluation mode.
    members
        All records that somebody trained on.
    others
        Records that nobody trained on and nobody is asked about.
    seed
        Of the release's own randomness, which nobody else knows.
    """

    model: nn.Module
    members: Examples
    others: Examples
    seed: int


class Release(ABC):
    """A defence at the output side; it changes no weights and leaves training as it is.

    Subclasses are frozen dataclasses whose fields are public settings.
    """

    others_needed: ClassVar[int] = 0
    """Records that nobody trained on or is asked about which the release takes at least."""

    @abstractmethod
    def guard(self, owner: Owner) -> Guard:
        """Return what stands between the model's outputs and whoever asks."""


def check_release(release: Release | None, vantage: str, others: int) -> None:
    """Refuse a release to who sees the model itself, and one that has too few records.

    Parameters
    ----------
    release
        ``None`` where nothing is done to the outputs.
    vantage
        The name of the adversary's.
    others
        Records that nobody trained on and nobody is asked about.

    Raises
    ------
    ConfigError
        In one line, which of the two it is.
    """
    if release is None:
        return
    name, needed = type(release).__name__, release.others_needed
    allowed = f"observer.vantage=final_model: vantage '{vantage}' sees the model itself"
    expect(vantage == ReleasedModel.name, "release", name, allowed)
    allowed = f"{needed} held-out records that no attack is asked about, there are {others} "
    expect(others >= needed, "release", name, f"{allowed}(see candidates.reserve)")
