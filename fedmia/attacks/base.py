"""What every attack is: a pure function of what its adversary has seen."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from fedmia.records import Capability, Examples
from fedmia.signals import Signals
from fedmia.transcript import Transcript


class NotApplicableError(Exception):
    """The vantage does not show what the attack needs; the text is the reason."""


@dataclass(frozen=True)
class Knowledge:
    """What the adversary has beyond its vantage; public or its own, never membership.

    ``auxiliary`` are records from the training distribution that are neither members nor
    evaluated non-members (empty where the adversary has none).
    """

    auxiliary: Examples
    num_classes: int


@dataclass(frozen=True)
class View:
    """A transcript as one vantage shows it, and the signals computed from nothing else."""

    transcript: Transcript
    signals: Signals


class Attack(ABC):
    """Score candidates for membership; **higher means member**, for every attack.

    Subclasses are frozen dataclasses whose fields are public settings. They implement
    :meth:`score`; the call itself checks what goes in and what comes out.
    """

    needs: ClassVar[frozenset[Capability]]
    reference: ClassVar[str]
    """BibTeX key in ``docs/references.bib``."""

    def requirements(self) -> frozenset[Capability]:
        """Return what must be visible for these settings; ``needs`` unless they matter."""
        return self.needs

    @final
    def __call__(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return one float64 score a candidate, shape (n,).

        Parameters
        ----------
        view
            What the adversary saw.
        target
            The node whose data is asked about; ``None`` asks whether anyone held the record.
        candidates
            The n labelled records in question, the same for every attack and target.
        knowledge
            What else the adversary has.

        Raises
        ------
        NotApplicableError
            If the view lacks something this attack needs.
        FloatingPointError
            If a score is not finite.
        """
        self.check_applicable(view.transcript.vantage, view.transcript.shows)
        scores = np.asarray(self.score(view, target, candidates, knowledge), dtype=np.float64)
        if scores.shape != (len(candidates),):
            raise ValueError(
                f"{type(self).__name__} returned shape {scores.shape}, "
                f"expected ({len(candidates)},)"
            )
        if not np.isfinite(scores).all():
            bad = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise FloatingPointError(f"score of candidate {bad} is {scores[bad]}")
        return scores

    @final
    def check_applicable(self, vantage: str, shows: frozenset[Capability]) -> None:
        """Raise ``NotApplicableError`` if a vantage lacks something this attack needs."""
        if missing := sorted(self.requirements() - shows):
            raise NotApplicableError(
                f"needs {', '.join(missing)}; vantage '{vantage}' shows "
                f"{', '.join(sorted(shows)) or 'nothing'}"
            )

    @abstractmethod
    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return one score a candidate, shape (n,), higher = member."""
