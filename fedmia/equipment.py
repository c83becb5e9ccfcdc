"""The server's root data set: who asks for one, which records it has, who gets how many.

A strategy that needs records of the server's own has an attribute ``root_samples``, their number,
and a method ``equip(root)``. They are held-out records that no attack is asked about, and are
neither in the test accuracy nor the adversary's.
"""

from collections.abc import Iterator

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedmia.errors import expect
from fedmia.root import Root
from fedmia.seeding import generator
from fedmia.stack import wrapped

Indices = NDArray[np.int64]


def asking(strategy: Strategy) -> Iterator[tuple[str, Strategy, int]]:
    """Yield each part of a strategy that asks for root records: key, part, number."""
    for key, part in wrapped(strategy):
        if wanted := int(getattr(part, "root_samples", 0)):
            yield f"{key}.root_samples", part, wanted


def draw_root(
    strategy: Strategy, pool: Indices, labels: NDArray[np.int64], like: Indices, seed: int
) -> Indices:
    """Return the positions of the root records: as many as the part that asks for most.

    Any few in a row have the classes in the proportions of the records that the federation
    trains on (case I of Cao et al., "FLTrust", NDSS 2021), as far as the pool has them.

    Parameters
    ----------
    strategy
        The outermost one.
    pool
        Positions that may be drawn, (m,).
    labels
        Of all records.
    like
        Positions of all that is trained on.
    seed
        Of the experiment.

    Raises
    ------
    ConfigError
        If a part asks for more than there are.
    """
    most = 0
    for key, _, wanted in asking(strategy):
        allowed = f"at most {len(pool)}, the held-out records that no attack is asked about "
        expect(wanted <= len(pool), key, wanted, f"{allowed}(see candidates.reserve)")
        most = max(most, wanted)
    return _in_proportion(pool, labels, like, generator(seed, "root"))[:most]


def equip(strategy: Strategy, root: Root) -> None:
    """Give each part that asks for root records its own number of them, the first ones."""
    for _, part, wanted in asking(strategy):
        part.equip(root.first(wanted))  # type: ignore[attr-defined]


def notes(strategy: Strategy) -> list[str]:
    """Return what must be known of a result with root records, a line."""
    most = max(asking(strategy), key=lambda found: found[2], default=None)
    if most is None:
        return []
    key, _, count = most
    return [
        f"{key}={count}: so many held-out records are the server's own, neither in the test "
        "accuracy nor the adversary's"
    ]


def _in_proportion(
    pool: Indices, labels: NDArray[np.int64], like: Indices, rng: np.random.Generator
) -> Indices:
    """Return the pool in an order in which each class comes up at its rate in ``like``."""
    shuffled, rates = rng.permutation(pool), np.bincount(labels[like], minlength=labels.max() + 1)
    due = np.full(len(shuffled), np.inf)
    for label in np.flatnonzero(rates):
        own = np.flatnonzero(labels[shuffled] == label)
        due[own] = (np.arange(len(own)) + 0.5) / rates[label]
    return np.asarray(shuffled[np.argsort(due, kind="stable")])
