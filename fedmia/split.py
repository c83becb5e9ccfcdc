"""Who holds which record, who is asked about, and in which order: drawn once, hashed, saved."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmia.datasets.base import Dataset
from fedmia.errors import ConfigError, expect
from fedmia.partition import Partition

Indices = NDArray[np.int64]

MIN_NONMEMBERS = 10
"""Below this many held-out records no error rate means anything."""


def _none() -> Indices:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Split:
    """Disjoint index arrays into one data set.

    ``shards`` holds each client's members; ``nonmembers`` the held-out records that are
    evaluated; ``auxiliary`` the held-out rest, the adversary's public data. ``canaries`` (m,) are
    records that were planted, and asked about in place of all others: each is in the shard of its
    client in ``hosts`` (m,), or nowhere. ``sha256`` covers the records themselves and all of these.
    """

    shards: tuple[Indices, ...]
    nonmembers: Indices
    auxiliary: Indices
    sha256: str
    canaries: Indices = field(default_factory=_none)
    hosts: Indices = field(default_factory=_none)

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file; an existing one is replaced whole or not at all."""
        partial = path.with_name(path.name + ".partial")
        with partial.open("wb") as file:
            np.savez(
                file,
                members=np.concatenate(self.shards),
                sizes=np.array([len(shard) for shard in self.shards]),
                nonmembers=self.nonmembers,
                auxiliary=self.auxiliary,
                canaries=self.canaries,
                hosts=self.hosts,
                sha256=np.array(self.sha256),
            )
        partial.replace(path)

    def verify(self, dataset: Dataset) -> None:
        """Raise ``ConfigError`` unless the split was drawn from exactly these records."""
        same = covering(dataset, self) == self.sha256
        expect(same, "split", self.sha256[:12], "the records it was drawn from, these differ")

    @classmethod
    def load(cls, path: Path) -> "Split":
        """Read what :meth:`save` wrote.

        Raises
        ------
        ConfigError
            If the file is missing or is not a whole split.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                members, sizes = file["members"], file["sizes"]
                nonmembers, auxiliary = file["nonmembers"], file["auxiliary"]
                canaries, hosts = (file.get(name, _none()) for name in ("canaries", "hosts"))
                digest = str(file["sha256"])
            shards = np.split(members, np.cumsum(sizes)[:-1])
            everything = np.concatenate([*shards, nonmembers, auxiliary])
        except FileNotFoundError:
            raise ConfigError(f"split={path}: expected an existing file") from None
        except Exception as error:  # numpy and zipfile raise a dozen types on damaged bytes
            raise ConfigError(f"split={path}: expected a whole split ({_line(error)})") from None
        whole = everything.dtype == np.int64 and sizes.sum() == len(members)
        disjoint = len(np.unique(everything)) == len(everything)
        expect(whole and disjoint, "split", path, "a whole split, with disjoint sets of records")
        return cls(tuple(shards), nonmembers, auxiliary, digest, canaries, hosts)


def covering(dataset: Dataset, split: Split) -> str:
    """Return the SHA-256 of the records and of all index arrays into them, in hexadecimal."""
    planted = (split.canaries, split.hosts) if split.canaries.size else ()
    held_out = split.nonmembers, split.auxiliary
    return _digest(dataset.x, dataset.y, *split.shards, *held_out, *planted)


def draw(
    dataset: Dataset,
    partition: Partition,
    num_clients: int,
    num_nonmembers: int,
    rng: np.random.Generator,
    reserve: float = 0.0,
) -> Split:
    """Divide all records into members, evaluated non-members and the adversary's public rest.

    Non-members have the class proportions of the members, exactly so for balanced shards; the
    number asked for is lowered to what the rarest class allows, and so that a share ``reserve`` of
    the held-out records of each class is left over. A partition that hands out everything gets
    what is left once held-out records, at most half of each class, are set aside.

    Raises
    ------
    ConfigError
        If the records do not suffice; ``candidates.nonmembers``, ``num_clients`` or a key of the
        partition is named in full.
    """
    everything = np.arange(len(dataset), dtype=np.int64)
    pool = partition.eligible(dataset, everything, num_clients)
    if partition.samples_per_client is None:
        per_class = np.bincount(dataset.y[pool], minlength=dataset.num_classes)
        like = np.ones_like(per_class) if partition.balanced else per_class
        half = per_class // 2
        limit = _leave(half, reserve)
        nonmembers = _held_out(dataset.y, pool, like, num_nonmembers, limit, rng)
        free = np.setdiff1d(pool, nonmembers)
        kept = rng.permutation(free)
        spare = [kept[dataset.y[kept] == c][:k] for c, k in enumerate((half * reserve).astype(int))]
        shards = partition(dataset, np.setdiff1d(free, np.concatenate(spare)), num_clients, rng)
        members = np.concatenate(shards)
    else:
        shards = partition(dataset, pool, num_clients, rng)
        members = np.concatenate(shards)
        rest = np.setdiff1d(pool, members)
        like = np.bincount(dataset.y[members], minlength=dataset.num_classes)
        limit = _leave(np.bincount(dataset.y[rest], minlength=dataset.num_classes), reserve)
        nonmembers = _held_out(dataset.y, rest, like, num_nonmembers, limit, rng)
    auxiliary = np.setdiff1d(everything, np.concatenate([members, nonmembers]))
    split = Split(tuple(shards), nonmembers, auxiliary, "")
    return replace(split, sha256=covering(dataset, split))


@dataclass(frozen=True)
class Candidates:
    """The records every attack is asked about, the same for each attack, client and round.

    ``index`` (n,) points into the data set, in an order that says nothing about membership;
    ``owner`` (n,) is the client whose shard holds the record, −1 for a held-out non-member;
    ``sha256`` covers ``index`` in its order. ``host`` (n,) is the client whose shard a canary would
    be in, whether or not it is; ``None`` where the candidates are no canaries.
    """

    index: Indices
    owner: Indices
    sha256: str
    host: Indices | None = None


def draw_candidates(
    split: Split, labels: NDArray[np.int64], rng: np.random.Generator, null: bool = False
) -> Candidates:
    """Shuffle members and non-members into one list; where canaries were planted, those alone.

    With ``null`` nobody on the list was trained on: every client is assigned *pseudo-members* out
    of the held-out records, as many of each class as its shard has (scaled down to half of the
    held-out records of a class if need be), and the non-members come from the rest. Any attack
    that then does better than chance owes it to the procedure.

    Parameters
    ----------
    split
        Members and held-out records.
    labels
        Label of every record of the data set, shape (len(dataset),).
    rng
        Source of the order, and of the pseudo-members.
    null
        Whether to make the null run's list.

    Raises
    ------
    ConfigError
        If there are too few held-out records for a null run, or it has canaries.
    """
    members, nonmembers = split.shards, split.nonmembers
    if split.canaries.size:
        allowed = "false with canaries: half of them are members by their coins"
        expect(not null, "metrics.null_run", null, allowed)
        return _canaries(split, rng)
    if null:
        members, nonmembers = _pseudo(split, labels, rng)
    index = np.concatenate([*members, nonmembers])
    sizes = [len(shard) for shard in members] + [len(nonmembers)]
    owner = np.repeat([*range(len(members)), -1], sizes).astype(np.int64)
    order = rng.permutation(len(index))
    return Candidates(index[order], owner[order], _digest(index[order]))


def _canaries(split: Split, rng: np.random.Generator) -> Candidates:
    order = rng.permutation(split.canaries.size)
    index, host = split.canaries[order], split.hosts[order]
    owner = np.where(np.isin(index, np.concatenate(split.shards)), host, -1)
    return Candidates(index, owner, _digest(index), host)


def _pseudo(
    split: Split, labels: NDArray[np.int64], rng: np.random.Generator
) -> tuple[tuple[Indices, ...], Indices]:
    held = rng.permutation(np.concatenate([split.nonmembers, split.auxiliary]))
    classes = int(labels.max()) + 1
    wanted = np.array([np.bincount(labels[s], minlength=classes) for s in split.shards])
    empty = wanted.sum(axis=1) == 0
    available = np.bincount(labels[held], minlength=classes)
    scale = np.minimum(1, available / 2 / np.maximum(wanted.sum(axis=0), 1))
    if (wanted == wanted[:, :1]).all():  # balanced shards stay balanced
        scale[:] = scale.min()
    wanted = np.floor(wanted * scale).astype(np.int64)
    expect(
        bool(((wanted.sum(axis=1) > 0) | empty).all()),
        "metrics.null_run",
        True,
        f"held-out records for a pseudo-member a class and client, {len(held)} are left "
        f"for {len(split.shards)} clients",
    )
    ends = np.cumsum(wanted, axis=0)
    by_class = [held[labels[held] == label] for label in range(classes)]
    pseudo = tuple(
        np.concatenate([
            by_class[label][end - count : end]
            for label, (count, end) in enumerate(zip(wanted[client], ends[client], strict=True))
        ])
        for client in range(len(wanted))
    )  # fmt: skip
    rest = np.setdiff1d(held, np.concatenate(pseudo))
    count = len(split.nonmembers)
    return pseudo, _held_out(labels, rest, wanted.sum(axis=0), count, None, rng)


def _held_out(
    labels: NDArray[np.int64],
    pool: Indices,
    like: NDArray[np.int64],
    count: int,
    limit: NDArray[np.int64] | None,
    rng: np.random.Generator,
) -> Indices:
    """Draw up to ``count`` of ``pool`` in the class proportions ``like`` (C,), sorted.

    At most ``limit`` (C,) a class. Equal proportions are kept exactly; others are followed as far
    as each class allows.
    """
    available = np.bincount(labels[pool], minlength=len(like))
    limit = available if limit is None else limit
    needed, classes = MIN_NONMEMBERS, len(like)
    if (like == like[0]).all():
        needed = -(-needed // classes) * classes
        quota = np.full(classes, min(count // classes, int(limit.min())))
    else:
        quota = np.minimum(_apportion(min(count, int(limit.sum())), like), limit)
    free = f"{limit.sum()} held-out records are free, {limit.min()} of the rarest class"
    allowed = f"at least {needed}, and records for them ({free})"
    expect(quota.sum() >= MIN_NONMEMBERS, "candidates.nonmembers", count, allowed)
    shuffled = rng.permutation(pool)
    taken = [shuffled[labels[shuffled] == label][:n] for label, n in enumerate(quota)]
    return np.sort(np.concatenate(taken))


def _leave(available: NDArray[np.int64], reserve: float) -> NDArray[np.int64]:
    """Return how many records of each class may be taken, so that a share of them is left."""
    return np.asarray(available - np.floor(available * reserve).astype(np.int64))


def _apportion(total: int, weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Split ``total`` in proportion to ``weights``, to whole numbers by largest remainder."""
    exact = total * weights / weights.sum()
    whole: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    late = np.argsort(whole - exact, kind="stable")[: total - int(whole.sum())]
    whole[late] += 1
    return whole


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _digest(*arrays: NDArray[Any]) -> str:
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{array.dtype.str}{array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
