"""Canary records: made of held-out ones, dealt to clients, and put in by fair coins."""

from dataclasses import dataclass

import numpy as np
import pytest
from torch import nn

from fedmia.canaries.base import CanaryRecords
from fedmia.canaries.mislabelled import Mislabelled
from fedmia.canaries.planting import planted, with_empty_shards
from fedmia.datasets.base import Dataset
from fedmia.errors import ConfigError
from fedmia.partition import Iid
from fedmia.records import Examples
from fedmia.split import Split, draw, draw_candidates

CLIENTS, COUNT = 5, 60
MODEL = nn.Linear(6, 3)


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 6)).astype(np.float32)
    owner = rng.integers(9, size=600)
    return Dataset(x, np.arange(600) % 3, ("a", "b", "c"), owner, tuple("abcdefghi"))


@pytest.fixture(scope="module")
def split(dataset):
    return draw(dataset, Iid(samples_per_client=20), CLIENTS, 100, np.random.default_rng(1), 0.3)


def plant(dataset, split, seed=0, canaries=None):
    return planted(dataset, split, canaries or Mislabelled(count=COUNT), MODEL, seed)


@dataclass(frozen=True, kw_only=True)
class Spying(CanaryRecords):
    """Changes nothing, and keeps what it was given."""

    def plant(self, records, others, model, num_classes, rng):
        given.append((records, others, model, num_classes))
        return records


given: list[tuple[Examples, Examples, nn.Module, int]] = []


def test_the_data_set_grows_by_the_canaries_and_keeps_what_it_had(dataset, split):
    extended, found = plant(dataset, split)
    assert len(extended) == 600 + COUNT
    np.testing.assert_array_equal(extended.x[:600], dataset.x)
    np.testing.assert_array_equal(extended.y[:600], dataset.y)
    assert extended.x.dtype == np.float32
    np.testing.assert_array_equal(found.canaries, np.arange(600, 600 + COUNT))
    place = {row.tobytes(): i for i, row in enumerate(dataset.x)}
    sources = np.array([place[row.tobytes()] for row in extended.x[600:]])
    assert (dataset.y[sources] != extended.y[600:]).all()
    np.testing.assert_array_equal(extended.owner[600:], dataset.owner[sources])
    # made of what no attack is asked about, and nobody has the originals any more
    assert set(sources) <= set(split.auxiliary)
    assert set(found.auxiliary) == set(split.auxiliary) - set(sources)
    assert len(set(sources)) == COUNT


def test_clients_keep_their_records_and_get_canaries_that_are_their_own(dataset, split):
    _, found = plant(dataset, split)
    assert len(found.shards) == CLIENTS
    everything = np.concatenate([*found.shards, found.nonmembers, found.auxiliary])
    assert len(np.unique(everything)) == len(everything)
    np.testing.assert_array_equal(found.nonmembers, split.nonmembers)
    np.testing.assert_array_equal(np.bincount(found.hosts), [COUNT // CLIENTS] * CLIENTS)
    for client, (after, before) in enumerate(zip(found.shards, split.shards, strict=True)):
        np.testing.assert_array_equal(after[: len(before)], before)
        mine = after[len(before) :]
        assert (found.hosts[mine - 600] == client).all()
        assert 0 < len(mine) < COUNT // CLIENTS


def test_coins_are_fair_and_independent(dataset, split):
    """Of 400 federations: how many are in, whether neighbours agree, and who is in how often."""
    coins = np.stack([
        np.isin(np.arange(600, 600 + COUNT), np.concatenate(plant(dataset, split, s)[1].shards))
        for s in range(400)
    ])  # fmt: skip
    totals = coins.sum(axis=1)
    assert totals.mean() == pytest.approx(COUNT / 2, abs=0.8)
    assert totals.var() == pytest.approx(COUNT / 4, rel=0.25)  # a fixed number would have none
    assert np.abs(coins.mean(axis=0) - 0.5).max() < 0.11
    agree = (coins[:, 1:] == coins[:, :-1]).mean()
    assert agree == pytest.approx(0.5, abs=0.01)


def test_coins_do_not_depend_on_what_the_canaries_look_like(dataset, split):
    included = [
        np.isin(found.canaries, np.concatenate(found.shards))
        for found in (
            plant(dataset, split, 7, canaries)[1]
            for canaries in (Mislabelled(count=COUNT), Spying(count=COUNT))
        )
    ]
    np.testing.assert_array_equal(*included)
    (records, others, model, classes) = given.pop()
    assert (len(records), model, classes) == (COUNT, MODEL, 3)
    assert len(others) == len(split.auxiliary) - COUNT
    assert not {r.tobytes() for r in records.x} & {r.tobytes() for r in others.x}


def test_the_hash_covers_canaries_coins_and_hosts(dataset, split, tmp_path):
    extended, found = plant(dataset, split)
    again = plant(dataset, split)[1]
    hashes = {split.sha256, found.sha256, plant(dataset, split, 1)[1].sha256}
    assert len(hashes) == 3
    assert again.sha256 == found.sha256
    found.save(tmp_path / "split.npz")
    loaded = Split.load(tmp_path / "split.npz")
    loaded.verify(extended)
    np.testing.assert_array_equal(loaded.canaries, found.canaries)
    np.testing.assert_array_equal(loaded.hosts, found.hosts)
    other = Dataset(extended.x, np.roll(extended.y, 1), extended.class_names)
    with pytest.raises(ConfigError, match=r"^split="):
        loaded.verify(other)


def test_attacks_are_asked_about_canaries_and_nothing_else(dataset, split):
    extended, found = plant(dataset, split)
    asked = draw_candidates(found, extended.y, np.random.default_rng(0))
    assert sorted(asked.index) == sorted(found.canaries)
    assert (np.diff(asked.index) != 1).any()
    np.testing.assert_array_equal(asked.host, found.hosts[asked.index - 600])
    for index, owner, host in zip(asked.index, asked.owner, asked.host, strict=True):
        assert owner == (host if index in found.shards[host] else -1)
    with pytest.raises(ConfigError, match=r"^metrics\.null_run=True: expected false with canaries"):
        draw_candidates(found, extended.y, np.random.default_rng(0), null=True)


def test_too_many_for_the_held_out_records_are_refused(dataset, split):
    there = len(split.auxiliary)
    plant(dataset, split, canaries=Mislabelled(count=there // 2))
    with pytest.raises(ConfigError) as caught:
        plant(dataset, split, canaries=Mislabelled(count=there // 2 + 1))
    assert str(caught.value).startswith(
        f"canaries.count={there // 2 + 1}: expected at most {there // 2}, half of the {there} held-"
    )


def test_canary_clients_hold_nothing_and_host_nothing(dataset, split):
    more = with_empty_shards(split, dataset, 3)
    assert [len(shard) for shard in more.shards] == [20] * CLIENTS + [0] * 3
    assert more.sha256 != split.sha256
    more.verify(dataset)
    _, found = plant(dataset, more)
    assert set(found.hosts) == set(range(CLIENTS))
    assert [len(shard) for shard in found.shards[CLIENTS:]] == [0] * 3


def test_a_null_run_gives_clients_without_records_no_pseudo_members(dataset, split):
    more = with_empty_shards(split, dataset, 3)
    asked = draw_candidates(more, dataset.y, np.random.default_rng(0), null=True)
    assert set(asked.owner) == {-1, *range(CLIENTS)}
    assert asked.host is None
