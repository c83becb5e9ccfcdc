"""Which shadow client trains on which record: drawn evenly, and alike in classes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def scaled(sizes: Sequence[int], num_records: int) -> tuple[int, ...]:
    """Return shard sizes that together take at most half of the records, at least 1 each.

    Half stays out, so that every record is held by some shadow federations and not by others.
    """
    half, total = num_records // 2, sum(sizes)
    if total <= half:
        return tuple(sizes)
    lowered = [max(1, size * half // total) for size in sizes]
    while sum(lowered) > half:  # raised to 1 elsewhere
        lowered[int(np.argmax(lowered))] -= 1
    return tuple(lowered)


def at_most_half(size: int, num_records: int) -> int:
    """Return how many of a pool's records one training set of ``size`` records holds."""
    return min(size, num_records // 2)


def federations(
    labels: Sequence[NDArray[np.int64]],
    sizes: Sequence[int],
    count: int,
    rng: np.random.Generator,
) -> list[list[Indices]]:
    """Draw who holds what in ``count`` federations, by federation and client.

    Parameters
    ----------
    labels
        Of the records of each pool. A federation holds half of the first pool, or as many of it
        as it holds at all, then of the next; each record of a pool is in nearly as many
        federations as any other of it.
    sizes
        Records a client; together at most half of each pool.
    count
        Federations.
    rng
        Source of all draws.

    Returns
    -------
    list
        Positions in the pools put one after another.
    """
    starts = np.cumsum([0, *(len(pool) for pool in labels[:-1])])
    everything, left, by_pool = np.concatenate(labels), sum(sizes), []
    for start, pool in zip(starts, labels, strict=True):
        size = at_most_half(left, len(pool))
        by_pool.append([start + chosen for chosen in training_sets(pool, size, count, rng)])
        left -= size
    sets = [np.concatenate(parts) for parts in zip(*by_pool, strict=True)]
    return [dealt(records, everything[records], sizes, rng) for records in sets]


def training_sets(
    labels: NDArray[np.int64], size: int, count: int, rng: np.random.Generator
) -> list[Indices]:
    """Draw ``count`` sets of ``size`` ≤ n/2 records, each record in nearly the same number of them.

    The records are dealt out from shuffled lists, one after another; what a set already holds is
    passed on to the next. So the numbers of sets that hold two records differ by 1 at most. Every
    list is in an order in which each stretch has the class proportions of the whole.

    Parameters
    ----------
    labels
        Of the records, shape (n,).
    size, count
        Records a set, and sets.
    rng
        Source of the shuffles.
    """
    waiting = np.zeros(0, dtype=np.int64)
    sets = []
    for _ in range(count):
        if len(waiting) < size:
            waiting = np.concatenate([waiting, interleaved(labels, rng)])
        _, first = np.unique(waiting, return_index=True)
        taken = np.sort(first)[:size]
        sets.append(waiting[taken])
        waiting = np.delete(waiting, taken)
    return sets


def interleaved(labels: NDArray[np.int64], rng: np.random.Generator) -> Indices:
    """Return a random order of all records in which those of a class are evenly spaced."""
    place = np.empty(len(labels))
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        place[own] = (np.arange(len(own)) + rng.random()) / len(own)
    return np.argsort(place, kind="stable")


def dealt(
    records: Indices, labels: NDArray[np.int64], sizes: Sequence[int], rng: np.random.Generator
) -> list[Indices]:
    """Divide records among clients so that each gets the class proportions of the whole.

    Parameters
    ----------
    records, labels
        What to divide, and the labels, both of shape (n,).
    sizes
        Records a client; they add up to n.
    rng
        Source of who gets which record of a class.
    """
    by_class = rng.permutation(len(records))
    by_class = by_class[np.argsort(labels[by_class], kind="stable")]
    slots = np.concatenate([(np.arange(size) + rng.random()) / size for size in sizes])
    clients = np.repeat(np.arange(len(sizes)), sizes)[np.argsort(slots, kind="stable")]
    return [records[by_class[clients == client]] for client in range(len(sizes))]
