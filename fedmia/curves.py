"""What cheap attacks would have found and proved had training ended after some of its rounds."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import NotApplicableError
from fedmia.knowledge import View
from fedmia.metrics import auc
from fedmia.pairs import pair

log = logging.getLogger(__name__)

POINTS = 10
"""Rounds that are looked at, at most."""


class Priced(Protocol):
    """An attack, or one with whose it is."""

    @property
    def cheap(self) -> bool:
        """Whether a score costs so little that it is computed again for rounds along the way."""


A = TypeVar("A", bound=Priced)
Scores = NDArray[np.float64]
Ask = Callable[[A, View], tuple[Scores, Mapping[int, str]]]
"""An attack and a view to the scores of all rows that it applies to, and why others are left out.

Raises ``NotApplicableError`` where it applies to none.
"""

Prove = Callable[[Mapping[str, Scores]], tuple[float, float]]
"""Scores (K, n) by attack to a lower bound on ε and its ceiling."""


@dataclass
class Curves:
    """What there would have been after each round; a figure is ``None`` where it cannot be given.

    ``auc`` has ``{round, auc}`` by attack; ``bounds`` has ``{round, epsilon_lower_bound,
    epsilon_ceiling}`` of all cheap attacks together, each valid with its confidence alone;
    ``failed`` says which attacks broke on the way, and how.
    """

    auc: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    bounds: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def follow(
    view: View,
    attacks: Mapping[str, A],
    left_out: Mapping[str, Collection[int]],
    ask: Ask[A],
    owner_without: Callable[[Collection[int]], NDArray[np.int64]],
    prove: Prove,
    finals: Mapping[str, Scores],
) -> Curves:
    """Ask cheap attacks again, given the transcript up to some of its rounds.

    Parameters
    ----------
    view
        Of the whole transcript.
    attacks
        Those that were measured.
    left_out
        Rows of targets that each was not asked about; a figure is of the same targets every time.
    ask, prove
        As above.
    owner_without
        The owners of the candidates, shape (n,), without the targets in some rows.
    finals
        Scores (K, n) of the attacks, cheap or not, that were asked about every target: they prove
        what is proved after the last round.
    """
    found = Curves()
    total = len(view.transcript)
    cheap = {name: attack for name, attack in attacks.items() if attack.cheap}
    if total < 2 or not cheap:
        return found
    found.auc = {name: [] for name in cheap}
    for rounds in np.unique(np.linspace(1, total, min(total, POINTS)).round().astype(int)).tolist():
        early = View(view.transcript, view.signals.until(rounds))
        number = view.transcript.rounds[rounds - 1]
        whole: dict[str, Scores] = {}
        for name, attack in cheap.items():
            entry: dict[str, Any] = {"round": number, "auc": None}
            found.auc[name].append(entry)
            if name in found.failed:
                continue
            try:
                scores, away = ask(attack, early)
            except NotApplicableError:
                continue
            except Exception as error:
                log.exception("attack %s failed after round %d", name, number)
                found.failed[name] = f"{type(error).__name__}: {error}"
                continue
            if away.keys() == left_out[name]:
                pairs = pair(scores, owner_without(away.keys()))
                entry["auc"] = auc(pairs.scores, pairs.members)
            if not away:
                whole[name] = scores
        if rounds == total:
            whole = {name: scores for name, scores in finals.items() if name not in found.failed}
        said = prove(whole) if whole else (None, None)
        found.bounds.append(
            {"round": number, "epsilon_lower_bound": said[0], "epsilon_ceiling": said[1]}
        )
    return found
