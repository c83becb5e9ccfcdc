"""What the scores of a run's attacks prove about ε, at its end and after some of its rounds."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fedmia import audit
from fedmia.promised import PrivacyClaim, RoundEpsilon
from fedmia.seeding import generator
from fedmia.stage import Stage

CONFIDENCE = 0.95
"""Of each bound alone."""


def epsilon(
    stage: Stage,
    scores: Mapping[str, NDArray[np.float64]],
    owner: NDArray[np.int64],
    delta: float,
    host: NDArray[np.int64] | None = None,
) -> tuple[float, float]:
    """Return a lower bound on the ε of replacing one record, and its ceiling.

    Where the candidates are canaries, it is the ε of adding or removing one of them. The pairs are
    the same at every call: bounds after several rounds differ by the scores alone.

    Parameters
    ----------
    stage
        Whose candidates the attacks were asked about.
    scores
        Shape (K, n) by the attack's name.
    owner
        Shape (n,), as in :func:`fedmia.audit.epsilon_from_attacks`.
    delta
        δ at which ε is claimed, 0 where nothing is.
    host
        Shape (n,), as in :func:`fedmia.audit.epsilon_one_run_from_coins`; ``None`` where the
        candidates are no canaries.
    """
    rng = generator(stage.seed, "audit")
    if host is not None:
        return audit.epsilon_one_run_from_coins(scores, owner, host, delta, CONFIDENCE, rng)
    index = stage.candidates.index
    kind = stage.dataset.y[index]
    if stage.dataset.owner is not None:
        kind = kind + stage.dataset.num_classes * stage.dataset.owner[index]
    return audit.epsilon_one_run_from_attacks(scores, owner, kind, delta, CONFIDENCE, rng)


def merged(
    claimed: Iterable[RoundEpsilon], proved: Iterable[Mapping[str, Any]]
) -> list[RoundEpsilon]:
    """Return what is claimed and what is proved after each round, ascending; null where unknown.

    ``proved`` is ``bounds`` of :class:`fedmia.curves.Curves`.
    """
    found: dict[int, dict[str, Any]] = {entry["round"]: {**entry} for entry in claimed}
    for entry in proved:
        known = found.setdefault(entry["round"], {"epsilon_claimed": None})
        known |= entry
    return [cast(RoundEpsilon, found[number]) for number in sorted(found)]


def unclaimed(claims: Iterable[PrivacyClaim], vantage: str) -> str:
    """Return why a bound from a vantage has no claim to be held against, where it has none."""
    known = list(claims)
    if not known:
        return "no ε is claimed"
    if not any(vantage in claim["holds_against"] for claim in known):
        return f"no claim covers vantage '{vantage}'"
    return f"no ε of replacing one record is claimed against vantage '{vantage}'"
