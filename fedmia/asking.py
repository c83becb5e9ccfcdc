"""Attacks asked about all targets by one adversary or another, and the rows that come of it."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmia import adversary, measuring
from fedmia.adaptive import Informed
from fedmia.attacks.base import Attack, NotApplicableError
from fedmia.knowledge import Knowledge, View
from fedmia.records import Examples
from fedmia.settings import informed
from fedmia.stage import Stage
from fedmia.targets import Targets

log = logging.getLogger(__name__)

Scores = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Adversary:
    """How it looks at a view of the transcript, and what it knows beyond that of each target."""

    look: Callable[[View], View]
    knows: Sequence[Knowledge]

    def seconds(self, view: View) -> float:
        """Return the time spent so far on what all its attacks share."""
        return view.signals.seconds + self.shadow_seconds

    @property
    def shadow_seconds(self) -> float:
        """Time spent so far on its shadows."""
        shadows = self.knows[0].shadows
        return shadows.seconds if shadows else 0.0


def adversary_of(
    stage: Stage,
    view: View,
    who: Targets,
    on_shadows: Callable[[int, int], None],
    knows: Informed | None = None,
) -> Adversary:
    """Return the adversary of this vantage; one that knows the defences if told what that means."""
    known = adversary.knowledge(stage, view, who.known, on_shadows, knows)
    return Adversary(lru_cache(maxsize=1)(knows.view) if knows else lambda seen: seen, known)


@dataclass(frozen=True)
class Asked:
    """An attack that was measured, whose it was, and the rows of targets that it leaves out."""

    attack: Attack
    adversary: Adversary
    left_out: Collection[int]

    @property
    def cheap(self) -> bool:
        """As of the attack."""
        return self.attack.cheap


@dataclass
class Asking:
    """Asks attacks, one after the other.

    Parameters
    ----------
    stage, view, who
        The experiment, what its vantage shows, and who is asked about.
    failure
        Why training failed, which fails every attack; ``None`` if it did not.
    rows
        One for each attack so far.
    scores
        Those of the attacks that leave nobody out, (targets, n).
    asked
        The attacks that were measured.
    """

    stage: Stage
    view: View
    who: Targets
    failure: str | None
    rows: list[dict[str, Any]] = field(default_factory=list)
    scores: dict[str, Scores] = field(default_factory=dict)
    asked: dict[str, Asked] = field(default_factory=dict)

    def __call__(self, name: str, attack: Attack, one: Adversary) -> Scores | None:
        """Ask an attack, add its row, and return its scores, ``None`` if there are none."""
        row = {"name": name, "vantage": self.view.transcript.vantage}
        self.rows.append(row)
        return self._measure(row, attack, one)

    def again(self, name: str, attack: Attack, one: Adversary, before: Scores) -> None:
        """Ask an attack of an adversary that knows the defences.

        The row is added unless the scores are those ``before``, which others had of it.
        """
        row: dict[str, Any] = {"name": informed(name), "vantage": self.view.transcript.vantage}
        row["adaptive"] = True
        scores = self._measure(row, attack, one)
        if scores is not None and np.array_equal(scores, before):
            log.info("attack %s: knowing the defences changes nothing", name)
            self.scores.pop(row["name"], None)
            del self.asked[row["name"]]
            return
        self.rows.append(row)

    def of(self, asked: Asked, early: View) -> tuple[Scores, Mapping[int, str]]:
        """Return the scores of an attack, given what there was after earlier rounds."""
        return scores_of(asked.attack, asked.adversary, early, self.who, self.examples)

    @property
    def examples(self) -> Examples:
        """The candidates."""
        return self.view.signals.candidates

    def _measure(self, row: dict[str, Any], attack: Attack, one: Adversary) -> Scores | None:
        seen, who, name = self.view.transcript, self.who, row["name"]
        log.info("attack %s", name)
        try:
            attack.check_applicable(
                seen.vantage, seen.shows | one.knows[0].gives, seen.hides_updates
            )
            if self.failure is not None:
                row |= {"status": "failed", "reason": self.failure}
                return None
            began, apart = time.perf_counter(), one.seconds(self.view)
            scores, left_out = scores_of(attack, one, self.view, who, self.examples)
            spent = time.perf_counter() - began - (one.seconds(self.view) - apart)
            some = who.without(left_out)
            row |= measuring.measured(self.stage, scores, some.owner, some.clients)
            row["left_out"] = [
                {"client": who.clients[i], "reason": reason} for i, reason in left_out.items()
            ]
            row |= {"auc_per_round": None, "seconds": max(spent, 0.0)}
            self.asked[name] = Asked(attack, one, left_out.keys())
            if not left_out:
                self.scores[name] = scores
            return scores
        except NotApplicableError as error:
            row |= {"status": "not_applicable", "reason": str(error)}
        except Exception as error:
            log.exception("attack %s failed", name)
            row |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        return None


def scores_of(
    attack: Attack, one: Adversary, view: View, who: Targets, examples: Examples
) -> tuple[Scores, dict[int, str]]:
    """Return the scores of all targets that an attack applies to, and why others are left out.

    Raises
    ------
    NotApplicableError
        If it applies to none.
    """
    scores, left_out = [], {}
    seen = one.look(view)
    for row, (node, known) in enumerate(zip(who.nodes, one.knows, strict=True)):
        try:
            scores.append(attack(seen, node, examples, known))
        except NotApplicableError as error:
            left_out[row] = str(error)
    if not scores:
        raise NotApplicableError(left_out[0])
    return np.stack(scores), left_out
