"""How records are shared out among clients."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from fedmia.datasets.base import Dataset
from fedmia.errors import ConfigError, expect

Indices = NDArray[np.int64]

_MAX_DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class Partition(ABC):
    """Divide a pool of records into one shard a client.

    Subclasses are frozen dataclasses; they implement :meth:`divide`. Keys of errors that depend
    on the data are given in full (``partition.samples_per_client``, ``num_clients``).

    Attributes
    ----------
    samples_per_client
        Exact size of every shard; ``None`` hands out everything in the pool.
    """

    samples_per_client: int | None = None

    balanced: ClassVar[bool] = False
    """Whether every shard holds the same number of each class."""

    def __post_init__(self) -> None:
        size = self.samples_per_client
        expect(size is None or size >= 1, "samples_per_client", size, "null or at least 1")

    def eligible(self, dataset: Dataset, pool: Indices, num_clients: int) -> Indices:
        """Return the part of ``pool`` that shards may hold, which non-members are drawn from too.

        Members and non-members must come from one population, or telling the populations apart
        would pass for telling membership.
        """
        return pool

    @final
    def __call__(
        self, dataset: Dataset, pool: Indices, num_clients: int, rng: np.random.Generator
    ) -> list[Indices]:
        """Return ``num_clients`` disjoint, sorted, non-empty index arrays taken from ``pool``.

        Raises
        ------
        ConfigError
            If the pool cannot be divided as asked.
        """
        records, size = len(pool), self.samples_per_client
        allowed = f"in [1, {records}] ({records} records to share out)"
        expect(1 <= num_clients <= records, "num_clients", num_clients, allowed)
        allowed = f"at most {records // num_clients} ({records} records, {num_clients} clients)"
        fits = size is None or size * num_clients <= records
        expect(fits, "partition.samples_per_client", size, allowed)
        shards = self.divide(dataset, pool, num_clients, rng)
        smallest = min(len(shard) for shard in shards)
        allowed = f"fewer clients: with {num_clients} the smallest shard has {smallest} records"
        expect(smallest >= 1, "num_clients", num_clients, allowed)
        if size is not None:
            allowed = f"at most {smallest}, the records of the smallest shard"
            expect(size <= smallest, "partition.samples_per_client", size, allowed)
            shards = [rng.choice(shard, size, replace=False) for shard in shards]
        return [np.sort(shard).astype(np.int64) for shard in shards]

    @abstractmethod
    def divide(
        self, dataset: Dataset, pool: Indices, num_clients: int, rng: np.random.Generator
    ) -> list[Indices]:
        """Return disjoint shards of at least ``samples_per_client`` records; excess is cut."""


@dataclass(frozen=True, kw_only=True)
class Iid(Partition):
    """Records are shared out blindly; shard sizes differ by at most one."""

    def divide(
        self, dataset: Dataset, pool: Indices, num_clients: int, rng: np.random.Generator
    ) -> list[Indices]:
        """Return equal parts of a random order."""
        return np.array_split(rng.permutation(pool), num_clients)


@dataclass(frozen=True, kw_only=True)
class Stratified(Partition):
    """Every shard holds exactly the same number of each class.

    A class histogram then says nothing about membership, whatever an attack makes of labels.
    """

    balanced: ClassVar[bool] = True

    def divide(
        self, dataset: Dataset, pool: Indices, num_clients: int, rng: np.random.Generator
    ) -> list[Indices]:
        """Return shards of ``samples_per_client / C`` records a class, or as many as all have."""
        classes, size = dataset.num_classes, self.samples_per_client
        available = np.bincount(dataset.y[pool], minlength=classes)
        rarest = int(np.argmin(available))
        most = int(available[rarest]) // num_clients
        held = f"class '{dataset.class_names[rarest]}' has {available[rarest]} records available"
        if size is None:
            each = most
            allowed = f"at most {available[rarest]} (stratified split impossible: {held})"
            expect(each >= 1, "num_clients", num_clients, allowed)
        else:
            each, rest = divmod(size, classes)
            near = classes * min(max(1, round(size / classes)), most)
            use = f"partition.samples_per_client={near}" if most else "partition=iid"
            allowed = (
                f"a multiple of the {classes} classes (stratified split impossible); try {use}"
            )
            expect(rest == 0, "partition.samples_per_client", size, allowed)
            needed = f"{each * num_clients} needed"
            allowed = f"at most {most * classes} (stratified split impossible: {held}, {needed})"
            expect(each <= most, "partition.samples_per_client", size, allowed)
        by_class = [
            rng.permutation(pool[dataset.y[pool] == label])[: each * num_clients]
            for label in range(classes)
        ]
        return list(np.hstack([part.reshape(num_clients, each) for part in by_class]))


@dataclass(frozen=True, kw_only=True)
class Dirichlet(Partition):
    """Each class is shared out in proportions drawn from Dirichlet(α, …, α) over the clients.

    Small α means skewed shards; drawn again until every shard is large enough.

    Source: M. Yurochkin et al., *Bayesian Nonparametric Federated Learning of Neural Networks*,
    ICML 2019, arXiv 1905.12022, section 4.

    Attributes
    ----------
    alpha
        Concentration, above 0.
    min_samples
        Smallest shard that is accepted.
    """

    alpha: float = 0.5
    min_samples: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(0 < self.alpha < float("inf"), "alpha", self.alpha, "a finite number above 0")
        expect(self.min_samples >= 1, "min_samples", self.min_samples, "at least 1")

    def divide(
        self, dataset: Dataset, pool: Indices, num_clients: int, rng: np.random.Generator
    ) -> list[Indices]:
        """Return shards of random class proportions, each at least ``min_samples`` large."""
        by_class = [
            rng.permutation(pool[dataset.y[pool] == label]) for label in range(dataset.num_classes)
        ]
        totals = np.array([[len(indices)] for indices in by_class])
        need = max(self.min_samples, self.samples_per_client or 1)
        best = 0
        for _ in range(_MAX_DRAWS if need * num_clients <= len(pool) else 0):
            shares = rng.dirichlet(np.full(num_clients, self.alpha), size=len(by_class))
            cuts = np.floor(shares.cumsum(axis=1)[:, :-1] * totals).astype(np.int64)
            counts = np.diff(cuts, axis=1, prepend=0, append=totals)
            best = max(best, int(counts.sum(axis=0).min()))
            if best >= need:
                pieces = [
                    np.split(indices, cut) for indices, cut in zip(by_class, cuts, strict=True)
                ]
                return [np.concatenate(shard) for shard in zip(*pieces, strict=True)]
        key = "samples_per_client" if need == self.samples_per_client else "min_samples"
        raise ConfigError(
            f"partition.{key}={need}: expected at most {best or len(pool) // num_clients} with "
            f"alpha={self.alpha}, {num_clients} clients and {len(pool)} records"
        )


@dataclass(frozen=True, kw_only=True)
class Shards(Partition):
    """Records sorted by label are cut into equal pieces; every client gets a few at random.

    Source: H. B. McMahan et al., *Communication-Efficient Learning of Deep Networks from
    Decentralized Data*, AISTATS 2017, arXiv 1602.05629, section 3 ("pathological non-IID").

    Attributes
    ----------
    shards_per_client
        Pieces a client gets: about the number of classes it sees.
    """

    shards_per_client: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        pieces = self.shards_per_client
        expect(pieces >= 1, "shards_per_client", pieces, "at least 1")

    def divide(
        self, dataset: Dataset, pool: Indices, num_clients: int, rng: np.random.Generator
    ) -> list[Indices]:
        """Return ``shards_per_client`` pieces a client."""
        total = num_clients * self.shards_per_client
        allowed = (
            f"at most {len(pool) // num_clients} ({len(pool)} records for {num_clients} clients)"
        )
        fits = total <= len(pool)
        expect(fits, "partition.shards_per_client", self.shards_per_client, allowed)
        shuffled = rng.permutation(pool)
        by_label = shuffled[np.argsort(dataset.y[shuffled], kind="stable")]
        pieces = np.array_split(by_label, total)
        deal = rng.permutation(total).reshape(num_clients, self.shards_per_client)
        return [np.concatenate([pieces[piece] for piece in hand]) for hand in deal]


@dataclass(frozen=True, kw_only=True)
class ByColumn(Partition):
    """One natural owner a client: the ``num_clients`` owners with the most records.

    Clients stand in the order of the owners' names. Non-members come from the same owners.
    """

    def eligible(self, dataset: Dataset, pool: Indices, num_clients: int) -> Indices:
        """Return the records of the largest owners."""
        if dataset.owner is None:
            raise ConfigError(
                "partition=by_column: expected a data set that knows its records' owners "
                "(dataset.owner)"
            )
        counts = np.bincount(dataset.owner[pool])
        owners = int(np.count_nonzero(counts))
        allowed = f"in [1, {owners}], one client an owner ({owners} owners with records)"
        expect(1 <= num_clients <= owners, "num_clients", num_clients, allowed)
        largest = np.argsort(-counts, kind="stable")[:num_clients]
        return pool[np.isin(dataset.owner[pool], largest)]

    def divide(
        self, dataset: Dataset, pool: Indices, num_clients: int, rng: np.random.Generator
    ) -> list[Indices]:
        """Return the records of each owner."""
        chosen = self.eligible(dataset, pool, num_clients)
        assert dataset.owner is not None  # eligible() has refused otherwise
        owner = dataset.owner[chosen]
        return [chosen[owner == index] for index in np.unique(owner)]
