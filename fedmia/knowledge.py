"""What an adversary works with: what it has seen, and what it has beyond that."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedmia.records import Capability, Examples, Params
from fedmia.seeding import generator
from fedmia.signals import Signals
from fedmia.transcript import Transcript

Positions = NDArray[np.int64]


def _nobody() -> Positions:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class View:
    """A transcript as one vantage shows it, and the signals computed from nothing else.

    ``signals.of(records)`` are the signals of other records under the same transcript.
    """

    transcript: Transcript
    signals: Signals


class References(Protocol):
    """S models that the adversary trained itself."""

    def __len__(self) -> int:
        """Return S."""

    def held(self, records: Examples) -> NDArray[np.bool_]:
        """Return which model was trained on which record, (S, n)."""

    def logits(self, records: Examples) -> NDArray[np.float32]:
        """Return every model's logits, (S, n, classes), in evaluation mode."""


@dataclass(frozen=True, eq=False)
class ShadowFederation:
    """A federation that the adversary ran itself, watched from its own vantage.

    ``view.signals`` are those of ``candidates`` (n); ``nodes`` are the targets (one ``None`` where
    the vantage shows no single client) and ``owner`` (n,) gives the position in ``nodes`` of who
    trained on a record, −1 for nobody.
    """

    view: View
    candidates: Examples
    nodes: tuple[int | None, ...]
    owner: NDArray[np.int64]


class Shadows(Protocol):
    """Training by the federation's recipe on the adversary's own records.

    All are computed when first asked for, and kept. With ``online`` the training sets are drawn
    from candidates and auxiliary records together, else from auxiliary records alone.
    ``seconds`` is the time spent on it so far.
    """

    seconds: float

    def __hash__(self) -> int:
        """Return the same number for one object, so that what is learnt from it can be kept."""

    def federations(self, online: bool = False) -> References:
        """Return the global models after the last round of many shadow federations."""

    def clients(self, start: Params, size: int, online: bool = False) -> References:
        """Return the models of many shadow clients with ``size`` records, one round after start."""

    def transcripts(self) -> Sequence[ShadowFederation]:
        """Return a few shadow federations on auxiliary records with all that they show."""


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What the adversary has beyond its vantage.

    Parameters
    ----------
    auxiliary
        Records that are neither members nor evaluated non-members; none where it has none.
    num_classes
        C.
    known_members, known_nonmembers
        Positions among the candidates whose membership in the target's shard the adversary knows.
        They are not evaluated.
    recipe
        Whether it knows how clients train.
    shadows
        Trains models by the recipe on the auxiliary records; ``None`` where either is missing.
    seed
        Of the adversary's own randomness.
    """

    auxiliary: Examples
    num_classes: int
    known_members: Positions = field(default_factory=_nobody)
    known_nonmembers: Positions = field(default_factory=_nobody)
    recipe: bool = False
    shadows: Shadows | None = None
    seed: int = 0

    def rng(self, purpose: str) -> np.random.Generator:
        """Return the adversary's generator for one purpose, the same at every call."""
        return generator(self.seed, purpose)

    @property
    def gives(self) -> frozenset[Capability]:
        """What this adds to what a vantage shows."""
        has = {
            Capability.AUXILIARY: len(self.auxiliary) > 0,
            Capability.RECIPE: self.recipe,
            Capability.SHADOWS: self.shadows is not None,
            Capability.KNOWN_MEMBERS: min(len(self.known_members), len(self.known_nonmembers)) > 0,
        }
        return frozenset(c for c, there in has.items() if there)
