"""The parts of one experiment, and what follows from them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from omegaconf import DictConfig
from torch import nn

from clients.base import Client
from fedmia import composition
from fedmia.attackers import Attackers, arranged
from fedmia.attacks.base import Attack
from fedmia.canaries.watch import CanaryClients
from fedmia.config import build
from fedmia.datasets.base import Dataset
from fedmia.equipment import Indices, equip
from fedmia.federation import Federation
from fedmia.grid.base import Pool
from fedmia.membership import Membership
from fedmia.observer import Observer
from fedmia.records import Capability, Examples
from fedmia.releases.base import Release
from fedmia.root import Root
from fedmia.site import Trainer
from fedmia.split import Candidates, Split
from fedmia.vantages import GroupedServer, ReleasedModel, Vantage


@dataclass(frozen=True)
class Stage:
    """The parts of one experiment; ``root`` are the positions of the server's own records."""

    config: DictConfig
    seed: int
    dataset: Dataset
    split: Split
    candidates: Candidates
    model: nn.Module
    trainer: Trainer
    client: Client
    mods: tuple[Any, ...]
    pool: Pool
    observer: Observer
    attacks: Mapping[str, Attack]
    metrics: Membership
    auxiliary: Examples
    root: Indices
    canary_clients: CanaryClients | None = None
    attackers: Attackers = field(default_factory=dict)
    release: Release | None = None

    def strategy(self) -> Strategy:
        """Return a fresh strategy: strategies keep state between rounds."""
        strategy: Strategy = build(self.config, "strategy")
        equip(strategy, self._root)
        return strategy

    @cached_property
    def _root(self) -> Root:
        records, typical = self.dataset.examples(self.root), int(np.median(self.shard_sizes))
        return Root(self.model, self.trainer, records, self.seed, typical)

    def stand(self, nodes: Mapping[int, int]) -> Vantage:
        """Return where the adversary stands among these nodes (node id → client number)."""
        return self.observer.stand(nodes, self._hides_updates, self._grouping is not None)

    def groups(self, nodes: Iterable[int]) -> dict[int, tuple[int, ...]]:
        """Return whose updates the vantage shows as one, by the node that they go under.

        Each node alone, unless it shows sums of groups.
        """
        if isinstance(self.vantage, GroupedServer):
            found: dict[int, tuple[int, ...]] = self._grouping.of(nodes)
            return found
        return {node: (node,) for node in nodes}

    @property
    def shown_sizes(self) -> list[int]:
        """Number of records behind each update that the vantage shows, were nodes the clients."""
        sizes = dict(enumerate(self.shard_sizes))
        groups = self.groups(range(self.config.num_clients)).values()
        return [size for group in groups if (size := sum(sizes.get(k, 0) for k in group))]

    @cached_property
    def _grouping(self) -> Any:
        """How the strategy divides clients into groups; ``None`` if it does not."""
        return getattr(self.strategy(), "grouping", None)

    @cached_property
    def vantage(self) -> Vantage:
        """Where the adversary of the attacks stands, among clients for nodes: nobody is there yet.

        Of a release it sees less than what :meth:`stand` has recorded.
        """
        if self.release:
            return ReleasedModel()
        return self.stand({k: k for k in range(self.config.num_clients)})

    @cached_property
    def _hides_updates(self) -> str:
        """What the strategy is called if it hides single updates from the server, else nothing."""
        return str(getattr(self.strategy(), "hides_updates", ""))

    @property
    def holders(self) -> int:
        """Number of clients that hold records: the first ones; the others are canary clients."""
        count: int = self.config.num_clients
        return count - (self.canary_clients.count if self.canary_clients else 0)

    @property
    def shard_sizes(self) -> list[int]:
        """Number of records of each of those clients."""
        return [len(shard) for shard in self.split.shards[: self.holders]]

    @property
    def stack(self) -> composition.Stack:
        """What has to fit together: the strategy, mods, clients' sizes, dropout, model length."""
        names = map(str, self.config.client.get("defenses") or {})
        state = self.model.state_dict()
        canaries = self.canary_clients
        planted = [canaries.weight] * canaries.count if canaries else []
        return composition.Stack(
            self.strategy(),
            dict(zip(names, self.mods, strict=True)),
            [*self.shard_sizes, *planted],
            getattr(self.client, "dropout", 0.0),
            sum(value.numel() for value in state.values() if value.is_floating_point()),
            self.model,
            self.dataset.input_shape,
        )

    def federation(self) -> Federation:
        """Return the clients' side."""
        shards = [self.dataset.examples(shard) for shard in self.split.shards]
        device = "cuda" if getattr(self.pool, "num_gpus", 0) else "cpu"
        mods = arranged(self.mods, self.attackers)
        mods = (*mods, self.canary_clients) if self.canary_clients else mods
        return Federation(self.client, mods, self.model, self.trainer, shards, self.seed, device)

    @property
    def members(self) -> Examples:
        """All records that somebody trains on."""
        return self.dataset.examples(np.concatenate(self.split.shards))

    @property
    def held_out(self) -> Examples:
        """All records that nobody trains on, neither a client nor the server."""
        index = np.concatenate([self.split.nonmembers, self.split.auxiliary])
        return self.dataset.examples(index[~np.isin(index, self.root)])

    @property
    def unasked(self) -> Examples:
        """All of those that no attack is asked about either."""
        index = np.setdiff1d(self.split.auxiliary, self.candidates.index)
        return self.dataset.examples(np.setdiff1d(index, self.root))

    @property
    def null_run(self) -> bool:
        """Whether nobody trained on any candidate, so that every attack must be at chance."""
        return bool(self.config.metrics.get("null_run", False))

    @property
    def gives(self) -> frozenset[Capability]:
        """What the adversary has beyond its vantage."""
        has = self.config.knowledge
        there = {
            Capability.AUXILIARY: len(self.auxiliary) > 0,
            Capability.RECIPE: bool(has.recipe),
            Capability.SHADOWS: bool(has.recipe) and len(self.auxiliary) > 0,
            Capability.KNOWN_MEMBERS: has.known_members > 0,
        }
        return frozenset(capability for capability, known in there.items() if known)
