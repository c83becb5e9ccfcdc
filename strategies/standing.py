"""What a reputation-weighted rule keeps of each client, and the terms on which it does."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fedmia.errors import expect
from strategies.updates import Float32


@dataclass
class Standing:
    """What is kept of one client between rounds.

    Parameters
    ----------
    reputation
        In [0, 1].
    judged
        Rounds in which it sent something that was judged.
    isolated
        Whether its updates have weight 0.
    wait
        Rounds for which an isolated client is not asked yet; ``None``: it is never asked again.
    history
        Decayed sum of its updates, (d,); ``None`` before the first.
    """

    reputation: float
    judged: int = 0
    isolated: bool = False
    wait: int | None = 0
    history: Float32 | None = None

    @property
    def asked(self) -> bool:
        """Whether the client may be asked: it is not isolated, or on probation."""
        return not self.isolated or self.wait == 0


@dataclass(frozen=True)
class Terms:
    """How reputations move, and what follows from them.

    Parameters
    ----------
    decay
        Share of a reputation that stays when a round is judged, in [0, 1).
    initial
        Reputation of a client before it is judged, in [0, 1].
    grace
        Judged rounds within which nobody is isolated.
    threshold
        Share of the mean reputation below which a client is isolated, in [0, 1).
    floor
        Reputation below which a client is isolated whatever the others have, in [0, 1).
    penalty
        What the reputation of a flagged client is multiplied by, in [0, 1].
    redemption
        Rounds after which an isolated client is asked again, on probation; ``None``: never.
    """

    decay: float
    initial: float
    grace: int
    threshold: float
    floor: float
    penalty: float
    redemption: int | None

    def __post_init__(self) -> None:
        for name in ("decay", "threshold", "floor"):
            value = getattr(self, name)
            expect(0 <= value < 1, name, value, "in [0, 1)")
        for name in ("initial", "penalty"):
            value = getattr(self, name)
            expect(0 <= value <= 1, name, value, "in [0, 1]")
        expect(self.grace >= 0, "grace", self.grace, "at least 0")
        again = self.redemption
        expect(again is None or again >= 1, "redemption", again, "null, or at least 1")

    def newcomer(self) -> Standing:
        """Return the standing of a client of which nothing is known."""
        return Standing(self.initial)

    def judge(self, standing: Standing, quality: float, earns: bool = True) -> None:
        """Move a reputation r to ``decay·r + (1 − decay)·quality``; not up unless it ``earns``."""
        before = standing.reputation
        quality = quality if earns else min(quality, before)
        standing.reputation = self.decay * before + (1 - self.decay) * quality
        standing.judged += 1

    def punish(self, standing: Standing) -> None:
        """Take a reputation down, and let a probation start anew."""
        standing.reputation *= self.penalty
        if standing.isolated:
            standing.wait = self.redemption

    def limit(self, standings: Iterable[Standing]) -> float:
        """Return the reputation below which a client is isolated: a share of the mean, or a floor.

        The mean is over the clients that are not isolated and were judged before. A share of 1/3
        is RFFL's threshold: of reputations that sum to 1 over n clients, 1/(3n).
        """
        kept = [s.reputation for s in standings if s.judged and not s.isolated]
        return max(self.floor, self.threshold * math.fsum(kept) / len(kept) if kept else 0.0)

    def isolates(self, standing: Standing, limit: float) -> bool:
        """Whether a client is to be isolated now, isolating it if so; or let back in, if not."""
        low = standing.reputation < limit
        if standing.isolated:
            standing.isolated = low
            return False
        if not low or standing.judged <= self.grace:
            return False
        standing.isolated, standing.wait = True, self.redemption
        return True


def remember(standing: Standing, update: Float32, memory: float) -> None:
    """Add an update, (d,), to a client's history, of which ``memory`` stays."""
    if standing.history is None:
        standing.history = update.copy()
        return
    np.multiply(standing.history, np.float32(memory), out=standing.history)
    standing.history += update
