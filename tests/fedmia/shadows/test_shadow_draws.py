import numpy as np
import pytest

from fedmia.shadows.draws import dealt, federations, interleaved, scaled, training_sets


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("sizes", "records", "expected"),
    [
        ([20, 20], 80, (20, 20)),
        ([20, 20], 79, (19, 19)),
        ([60, 20], 40, (15, 5)),
        ([100, 1, 1], 8, (2, 1, 1)),
        ([5, 5], 4, (1, 1)),
    ],
)
def test_shards_take_at_most_half_of_the_records(sizes, records, expected):
    assert scaled(sizes, records) == expected


@pytest.mark.parametrize(
    ("n", "size", "count"), [(60, 30, 8), (61, 30, 7), (60, 7, 20), (50, 1, 9)]
)
def test_every_record_is_in_as_many_training_sets_as_any_other(n, size, count):
    labels = rng(1).integers(3, size=n)
    sets = training_sets(labels, size, count, rng())
    times = np.bincount(np.concatenate(sets), minlength=n)

    assert [len(np.unique(s)) for s in sets] == [size] * count
    assert times.max() - times.min() <= 1


def test_training_sets_have_the_class_proportions_of_the_whole():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    counts = [np.bincount(labels[s], minlength=3) for s in training_sets(labels, 20, 4, rng())]

    assert np.abs(np.array(counts) - [12, 6, 2]).max() <= 2


def test_training_sets_differ_from_one_another_and_between_seeds():
    labels = np.zeros(40, dtype=int)
    first, other = (training_sets(labels, 20, 6, rng(seed)) for seed in (0, 1))
    overlap = [len(np.intersect1d(first[0], s)) for s in first[2:]]

    assert min(overlap) > 0
    assert max(overlap) < 20
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    again = training_sets(labels, 20, 6, rng(0))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_every_stretch_of_an_interleaved_order_is_alike():
    labels = np.repeat([0, 1], [80, 20])
    order = interleaved(labels, rng())

    assert sorted(order) == list(range(100))
    for start in range(0, 100, 10):
        assert 1 <= labels[order[start : start + 10]].sum() <= 3


def test_clients_get_disjoint_shards_of_their_size_with_all_classes():
    records = rng(3).permutation(200)[:60]
    labels = np.repeat([0, 1, 2], [30, 20, 10])
    shards = dealt(records, labels, [30, 18, 12], rng())

    assert [len(s) for s in shards] == [30, 18, 12]
    assert sorted(np.concatenate(shards)) == sorted(records)
    position = {record: i for i, record in enumerate(records)}
    for shard, size in zip(shards, (30, 18, 12), strict=True):
        counts = np.bincount(labels[[position[r] for r in shard]], minlength=3)
        assert np.abs(counts - np.array([30, 20, 10]) * size / 60).max() <= 1


@pytest.mark.parametrize(
    ("pools", "sizes", "held"),
    [
        ((40, 60), [12, 8], (8, 0)),  # half of the first pool is all that they hold
        ((40, 60), [20, 15], (8, 4)),  # 20 of 40 and 15 of 60, in 16 federations
        ((100, 60), [12, 8], (3.2, 0)),  # 20 of 100
        ((60,), [12, 8], (16 / 3,)),
    ],
)
def test_federations_hold_half_of_a_pool_before_they_take_from_the_next(pools, sizes, held):
    labels = [rng(1).integers(3, size=n) for n in pools]

    drawn = federations(labels, sizes, 16, rng())

    starts = np.cumsum([0, *pools])
    times = np.bincount(
        np.concatenate([np.concatenate(parts) for parts in drawn]), minlength=starts[-1]
    )
    assert [[len(part) for part in parts] for parts in drawn] == [sizes] * 16
    assert all(len(np.unique(np.concatenate(parts))) == sum(sizes) for parts in drawn)
    for start, n, expected in zip(starts, pools, held, strict=False):
        assert times[start : start + n].mean() == pytest.approx(expected)
        assert np.ptp(times[start : start + n]) <= 1
