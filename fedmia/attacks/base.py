"""What every attack is: a pure function of what its adversary has seen."""

from abc import ABC, abstractmethod
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from fedmia.knowledge import Knowledge, View
from fedmia.records import KNOWLEDGE, Capability, Examples, implied

__all__ = ["Attack", "Knowledge", "NotApplicableError", "View"]


class NotApplicableError(Exception):
    """Vantage or knowledge lack what the attack needs; the text is the reason."""


class Attack(ABC):
    """Score candidates for membership; **higher means member**, for every attack.

    Subclasses are frozen dataclasses whose fields are public settings. They implement
    :meth:`score`; the call itself checks what goes in and what comes out.
    """

    needs: ClassVar[frozenset[Capability]]
    reference: ClassVar[str]
    """BibTeX key in ``docs/references.bib``."""
    cheap: ClassVar[bool] = True
    """Whether a score costs so little that it is computed again for rounds along the way."""

    def requirements(self) -> frozenset[Capability]:
        """Return what must be visible for these settings; ``needs`` unless they matter."""
        return self.needs

    def selects(self) -> str:
        """Return what these settings pick among rounds or layers, and by what; empty if nothing."""
        return ""

    def shadows_needed(self, of_federation: float, of_client: float) -> int:
        """Return how many shadow models these settings take at least.

        ``of_federation`` and ``of_client`` are the shares of the candidates, in (0, 1/2], that a
        shadow federation and a shadow client hold where candidates may be trained on.
        """
        return 0

    def check_records(self, auxiliary: Examples, candidates: Examples) -> None:  # noqa: B027
        """Raise ``NotApplicableError`` if these records, known before training, do not serve."""

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
            If view and knowledge lack something this attack needs.
        FloatingPointError
            If a score is not finite.
        """
        seen = view.transcript
        self.check_applicable(seen.vantage, seen.shows | knowledge.gives, seen.hides_updates)
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
    def check_applicable(
        self, vantage: str, shows: frozenset[Capability], hides_updates: str = ""
    ) -> None:
        """Raise ``NotApplicableError`` unless vantage and knowledge together serve this attack.

        ``hides_updates`` is the defence, if any, that hides updates from this vantage.
        """
        missing = self.requirements() - implied(shows)
        unseen = sorted(missing - KNOWLEDGE)
        if unseen and hides_updates:
            raise NotApplicableError(
                f"needs {', '.join(unseen)}, vantage '{vantage}' under {hides_updates} "
                "shows only their sum"
            )
        if unseen and shows - KNOWLEDGE == {Capability.OUTPUTS}:
            raise NotApplicableError(
                f"needs {', '.join(unseen)}; vantage '{vantage}' behind a release shows "
                f"{Capability.OUTPUTS} only"
            )
        if unseen:
            raise NotApplicableError(
                f"needs {', '.join(unseen)}; vantage '{vantage}' shows "
                f"{', '.join(sorted(shows - KNOWLEDGE)) or 'nothing'}"
            )
        if missing:
            raise NotApplicableError(
                f"needs {', '.join(sorted(missing))}, which the adversary has not (see knowledge)"
            )

    @abstractmethod
    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return one score a candidate, shape (n,), higher = member."""
