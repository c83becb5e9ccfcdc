"""Put canaries into a federation: clients without records, or records by the toss of a coin each.

The coins are all that decides who is a member, so that members and non-members are exchangeable
and the theorem on independent coins applies (T. Steinke, M. Nasr, M. Jagielski, NeurIPS 2023,
arXiv 2305.08846). Which client a canary goes to if it goes anywhere is settled before its coin
falls.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import nn

from fedmia.canaries.base import CanaryRecords
from fedmia.canaries.watch import CanaryClients
from fedmia.config import build
from fedmia.datasets.base import Dataset
from fedmia.errors import expect
from fedmia.seeding import generator
from fedmia.split import Indices, Split, covering

_PURPOSE = "canary records"


def planted(
    dataset: Dataset, split: Split, canaries: CanaryRecords, model: nn.Module, seed: int
) -> tuple[Dataset, Split]:
    """Return the data set with m canaries behind its own records, and the split with them.

    The records that they are made of leave the adversary's: nobody has them any more. Canaries
    are dealt evenly to the clients that hold records.

    Raises
    ------
    ConfigError
        If more than half of the adversary's held-out records would be made into canaries.
    """
    count, there = canaries.count, len(split.auxiliary)
    allowed = f"at most {there // 2}, half of the {there} held-out records that no attack is asked "
    expect(count <= there // 2, "canaries.count", count, f"{allowed}about")
    order = generator(seed, _PURPOSE, 0).permutation(split.auxiliary)
    sources, rest = order[:count], np.sort(order[count:])
    made = canaries.plant(
        dataset.examples(sources),
        dataset.examples(rest),
        model,
        dataset.num_classes,
        generator(seed, _PURPOSE, 1),
    )
    owner = dataset.owner
    extended = replace(
        dataset,
        x=np.concatenate([dataset.x, made.x]),
        y=np.concatenate([dataset.y, made.y]),
        owner=None if owner is None else np.concatenate([owner, owner[sources]]),
    )
    holders = np.flatnonzero([len(shard) > 0 for shard in split.shards])
    hosts = holders[np.arange(count) % len(holders)]  # of records in a random order
    included = generator(seed, _PURPOSE, 2).random(count) < 0.5
    return extended, _with_canaries(replace(split, auxiliary=rest), extended, hosts, included)


def build_clients(config: DictConfig) -> CanaryClients | None:
    """Return the canary clients that were asked for, ``None`` if there are none.

    Raises
    ------
    ConfigError
        If they cannot be built, or are of several kinds.
    """
    names = [str(name) for name in config.client.get("canaries") or {}]
    shown = f"[{', '.join(names)}]"
    expect(len(names) <= 1, "client/canaries", shown, "one kind of canary clients at most")
    if not names:
        return None
    made = build(config, f"client.canaries.{names[0]}")
    allowed = "a mod with count, weight and directions()"
    fits = isinstance(made, CanaryClients)
    expect(fits, f"client.canaries.{names[0]}", type(made).__name__, allowed)
    clients: CanaryClients = made
    return clients


def with_empty_shards(split: Split, dataset: Dataset, count: int) -> Split:
    """Return the split with so many more clients, the last ones, who hold no records."""
    more = replace(split, shards=(*split.shards, *[split.auxiliary[:0]] * count))
    return replace(more, sha256=covering(dataset, more))


def _with_canaries(
    split: Split, dataset: Dataset, hosts: Indices, included: NDArray[np.bool_]
) -> Split:
    """Return the split with the last m records as canaries; hosts and included of shape (m,)."""
    canaries = np.arange(len(dataset) - len(hosts), len(dataset), dtype=np.int64)
    shards = tuple(
        np.concatenate([shard, canaries[included & (hosts == client)]])
        for client, shard in enumerate(split.shards)
    )
    more = replace(split, shards=shards, canaries=canaries, hosts=hosts.astype(np.int64))
    return replace(more, sha256=covering(dataset, more))
