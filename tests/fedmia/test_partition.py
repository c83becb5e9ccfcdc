import numpy as np
import pytest

from fedmia.datasets.base import Dataset
from fedmia.errors import ConfigError
from fedmia.partition import ByColumn, Dirichlet, Iid, Partition, Shards, Stratified


def make(labels, owner=None):
    y = np.asarray(labels, dtype=np.int64)
    names = tuple("abcdefghij"[: y.max() + 1])
    x = np.arange(len(y), dtype=np.float32)[:, None]
    owners = None if owner is None else np.asarray(owner, dtype=np.int64)
    return Dataset(x, y, names, owners, () if owner is None else tuple("PQRST"))


def divide(partition, dataset, num_clients, seed=0, pool=None):
    pool = np.arange(len(dataset)) if pool is None else pool
    return partition(dataset, pool, num_clients, np.random.default_rng(seed))


EVERY = [
    Iid(),
    Iid(samples_per_client=6),
    Stratified(),
    Stratified(samples_per_client=6),
    Dirichlet(min_samples=2),
    Dirichlet(min_samples=2, samples_per_client=6),
    Shards(),
    Shards(samples_per_client=6),
    ByColumn(),
    ByColumn(samples_per_client=6),
]


@pytest.mark.parametrize("partition", EVERY, ids=repr)
def test_shards_are_disjoint_sorted_parts_of_the_pool_and_depend_on_the_generator_only(partition):
    data = make(np.arange(120) % 3, owner=np.arange(120) % 5)
    pool = np.arange(7, 120)
    shards = divide(partition, data, 4, seed=3, pool=pool)
    everything = np.concatenate(shards)
    assert len(shards) == 4
    assert all(shard.dtype == np.int64 and len(shard) for shard in shards)
    assert all((np.diff(shard) > 0).all() for shard in shards)
    assert len(np.unique(everything)) == len(everything)
    assert set(everything) <= set(pool)
    again = divide(partition, data, 4, seed=3, pool=pool)
    assert all((a == b).all() for a, b in zip(shards, again, strict=True))
    if partition.samples_per_client:
        assert [len(shard) for shard in shards] == [6] * 4
    if not isinstance(partition, ByColumn):  # who owns what is no matter of chance
        other = divide(partition, data, 4, seed=4, pool=pool)
        assert any(len(a) != len(b) or (a != b).any() for a, b in zip(shards, other, strict=True))


def test_iid_without_a_size_hands_out_everything_in_near_equal_parts():
    shards = divide(Iid(), make(np.arange(11) % 2), 3)
    assert sorted(len(shard) for shard in shards) == [3, 4, 4]


def test_stratified_shards_hold_the_same_number_of_every_class():
    labels = np.repeat([0, 1, 2], [30, 9, 50])
    for shard in divide(Stratified(samples_per_client=6), make(labels), 4):
        assert np.bincount(labels[shard]).tolist() == [2, 2, 2]
    for shard in divide(Stratified(), make(labels), 4):  # 9 records of 'b' make 2 each
        assert np.bincount(labels[shard]).tolist() == [2, 2, 2]


def test_shards_give_each_client_few_classes():
    labels = np.repeat(np.arange(10), 20)
    shards = divide(Shards(shards_per_client=2), make(labels), 10)
    assert sum(len(shard) for shard in shards) == 200
    assert all(len(np.unique(labels[shard])) <= 2 for shard in shards)


def test_a_small_alpha_skews_and_a_large_one_does_not():
    labels = np.arange(2000) % 10

    def skew(alpha):
        shards = divide(Dirichlet(alpha=alpha, min_samples=1), make(labels), 5)
        shares = [np.bincount(labels[shard], minlength=10) / len(shard) for shard in shards]
        return np.abs(np.array(shares) - 0.1).sum(axis=1).mean()

    assert skew(0.1) > 0.8
    assert skew(1000) < 0.1


def test_dirichlet_hands_out_everything_and_keeps_its_minimum():
    sizes = [len(s) for s in divide(Dirichlet(min_samples=15), make(np.arange(100) % 2), 5)]
    assert sum(sizes) == 100
    assert min(sizes) >= 15


def test_by_column_takes_the_largest_owners_in_the_order_of_their_names():
    owner = np.repeat([0, 1, 2, 3], [3, 5, 2, 5])
    data = make(np.arange(15) % 2, owner)
    shards = divide(ByColumn(), data, 2)
    assert [owner[shard].tolist() for shard in shards] == [[1] * 5, [3] * 5]
    eligible = ByColumn().eligible(data, np.arange(15), 3)
    assert np.unique(owner[eligible]).tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Iid(samples_per_client=0), "samples_per_client=0: expected null or at least 1"),
        (lambda: Dirichlet(alpha=0), "alpha=0: expected a finite number above 0"),
        (lambda: Dirichlet(alpha=float("nan")), "alpha=nan: expected a finite number above 0"),
        (lambda: Dirichlet(min_samples=0), "min_samples=0: expected at least 1"),
        (lambda: Shards(shards_per_client=0), "shards_per_client=0: expected at least 1"),
        (
            lambda: divide(Iid(), make([0, 1, 0]), 4),
            "num_clients=4: expected in [1, 3] (3 records to share out)",
        ),
        (
            lambda: divide(Iid(), make([0, 1, 0]), 0),
            "num_clients=0: expected in [1, 3] (3 records to share out)",
        ),
        (
            lambda: divide(Iid(samples_per_client=3), make([0, 1, 0, 1, 0]), 2),
            "partition.samples_per_client=3: expected at most 2 (5 records, 2 clients)",
        ),
        (
            lambda: divide(Stratified(samples_per_client=3), make([0, 1] * 9), 2),
            "partition.samples_per_client=3: expected a multiple of the 2 classes "
            "(stratified split impossible); try partition.samples_per_client=4",
        ),
        (
            lambda: divide(Stratified(samples_per_client=1), make([0, 1] * 9), 2),
            "partition.samples_per_client=1: expected a multiple of the 2 classes "
            "(stratified split impossible); try partition.samples_per_client=2",
        ),
        (
            lambda: divide(Stratified(samples_per_client=3), make([0, 0, 0, 0, 0, 0, 1]), 2),
            "partition.samples_per_client=3: expected a multiple of the 2 classes "
            "(stratified split impossible); try partition=iid",
        ),
        (
            lambda: divide(Stratified(samples_per_client=6), make([0] * 20 + [1] * 5), 2),
            "partition.samples_per_client=6: expected at most 4 (stratified split impossible: "
            "class 'b' has 5 records available, 6 needed)",
        ),
        (
            lambda: divide(Stratified(), make([0] * 20 + [1] * 5), 6),
            "num_clients=6: expected at most 5 (stratified split impossible: "
            "class 'b' has 5 records available)",
        ),
        (
            lambda: divide(Shards(shards_per_client=4), make([0, 1, 0, 1, 0]), 2),
            "partition.shards_per_client=4: expected at most 2 (5 records for 2 clients)",
        ),
        (
            lambda: divide(Dirichlet(min_samples=60), make([0, 1] * 50), 2),
            "partition.min_samples=60: expected at most 50 with alpha=0.5, 2 clients and "
            "100 records",
        ),
        (
            lambda: divide(ByColumn(), make([0, 1]), 1),
            "partition=by_column: expected a data set that knows its records' owners "
            "(dataset.owner)",
        ),
        (
            lambda: divide(ByColumn(), make([0, 1, 0, 1], [0, 0, 2, 2]), 3),
            "num_clients=3: expected in [1, 2], one client an owner (2 owners with records)",
        ),
        (
            lambda: divide(ByColumn(samples_per_client=2), make([0, 1, 0, 1], [0, 0, 0, 1]), 2),
            "partition.samples_per_client=2: expected at most 1, the records of the smallest shard",
        ),
    ],
)
def test_what_cannot_be_divided_is_said_in_one_line(build, message):
    with pytest.raises(ConfigError) as caught:
        build()
    assert str(caught.value) == message


def test_a_partition_that_leaves_a_client_empty_is_refused():
    class Greedy(Partition):
        def divide(self, dataset, pool, num_clients, rng):
            return [pool, pool[:0]]

    with pytest.raises(ConfigError, match=r"num_clients=2: .* smallest shard has 0 records"):
        divide(Greedy(), make([0, 1]), 2)
