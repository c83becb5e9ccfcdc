import subprocess
import sys
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from fedmia.datasets.base import Dataset
from fedmia.errors import ConfigError
from fedmia.partition import ByColumn, Dirichlet, Iid, Shards, Stratified
from fedmia.split import Split, draw, draw_candidates


def make(labels, owner=None):
    y = np.asarray(labels, dtype=np.int64)
    x = np.arange(len(y), dtype=np.float32)[:, None]
    names = tuple(str(label) for label in range(y.max() + 1))
    return Dataset(x, y, names, owner, () if owner is None else ("p", "q", "r"))


BALANCED = make(np.arange(600) % 4)
SKEWED = make(np.repeat([0, 1, 2], [300, 150, 50]), owner=np.arange(500) % 3)


@contextmanager
def note(messages):
    try:
        yield
    except ConfigError as error:
        messages.append(str(error))


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    "partition",
    [
        Iid(),
        Iid(samples_per_client=9),
        Stratified(),
        Stratified(samples_per_client=9),
        Dirichlet(),
        Dirichlet(samples_per_client=9),
        Shards(),
        Shards(samples_per_client=9),
        ByColumn(),
        ByColumn(samples_per_client=9),
    ],
    ids=repr,
)
@pytest.mark.parametrize("null", [False, True])
def test_every_record_has_exactly_one_part(partition, null):
    split = draw(SKEWED, partition, 3, 100, rng())
    parts = np.concatenate([*split.shards, split.nonmembers, split.auxiliary])
    assert np.sort(parts).tolist() == list(range(500))
    assert 10 <= len(split.nonmembers) <= 100
    drawn = draw_candidates(split, SKEWED.y, rng(1), null=null)
    assert len(np.unique(drawn.index)) == len(drawn.index)
    assert np.unique(drawn.owner).tolist() == [-1, 0, 1, 2]
    trained = np.isin(drawn.index, np.concatenate(split.shards))
    if null:
        assert not trained.any()
    else:
        assert (trained == (drawn.owner >= 0)).all()
        for client, shard in enumerate(split.shards):
            assert np.sort(drawn.index[drawn.owner == client]).tolist() == shard.tolist()


def test_stratified_shards_leave_class_balanced_nonmembers():
    split = draw(BALANCED, Stratified(samples_per_client=20), 5, 303, rng())
    assert np.bincount(BALANCED.y[split.nonmembers]).tolist() == [75] * 4
    assert len(split.auxiliary) == 600 - 100 - 300
    # 50 records of the rarest class, 2·3 of them members
    split = draw(SKEWED, Stratified(samples_per_client=6), 3, 900, rng())
    assert np.bincount(SKEWED.y[split.nonmembers]).tolist() == [44] * 3


def test_a_partition_that_takes_everything_is_left_what_the_reserve_does_not_need():
    split = draw(BALANCED, Iid(), 5, 100, rng())
    assert len(split.nonmembers) == 100
    assert [len(shard) for shard in split.shards] == [100] * 5
    split = draw(BALANCED, Stratified(), 5, 900, rng())  # half of 150 a class is 75
    assert np.bincount(BALANCED.y[split.nonmembers]).tolist() == [75] * 4
    assert [len(shard) for shard in split.shards] == [60] * 5


def test_nonmembers_follow_the_class_proportions_of_the_members():
    for partition in (Iid(), Iid(samples_per_client=60)):
        split = draw(SKEWED, partition, 5, 100, rng())
        members = np.bincount(SKEWED.y[np.concatenate(split.shards)])
        nonmembers = np.bincount(SKEWED.y[split.nonmembers])
        assert np.abs(nonmembers / 100 - members / members.sum()).max() < 0.01


def test_nonmembers_of_a_partition_by_owner_come_from_the_same_owners():
    owner = np.repeat([0, 1, 2], [40, 60, 80])
    data = make(np.arange(180) % 2, owner)
    for partition in (ByColumn(), ByColumn(samples_per_client=30)):
        split = draw(data, partition, 2, 30, rng())
        assert set(owner[split.nonmembers]) == {1, 2}
        assert set(np.flatnonzero(owner == 0)) <= set(split.auxiliary)


def test_candidates_stand_in_an_order_that_says_nothing():
    split = draw(BALANCED, Stratified(samples_per_client=20), 10, 200, rng())
    drawn = draw_candidates(split, BALANCED.y, rng())
    members = np.flatnonzero(drawn.owner >= 0)
    # 200 of 400 places drawn at random: the mean place is 199.5 ± 5.8
    assert abs(members.mean() - 199.5) < 20
    again = draw_candidates(split, BALANCED.y, rng())
    assert (again.index == drawn.index).all()
    assert again.sha256 == drawn.sha256
    assert draw_candidates(split, BALANCED.y, rng(1)).sha256 != drawn.sha256


def test_pseudo_members_match_their_shards_class_by_class():
    split = draw(BALANCED, Dirichlet(samples_per_client=20), 5, 200, rng())
    drawn = draw_candidates(split, BALANCED.y, rng(), null=True)
    for client, shard in enumerate(split.shards):
        pseudo = drawn.index[drawn.owner == client]
        assert np.bincount(BALANCED.y[pseudo], minlength=4).tolist() == (
            np.bincount(BALANCED.y[shard], minlength=4).tolist()
        )


def test_a_null_run_of_stratified_shards_is_balanced_even_when_scaled_down():
    # 150 a class: 5·20 members, 50 held out, 25 of them for 5 clients: 5 instead of 20
    split = draw(BALANCED, Stratified(samples_per_client=80), 5, 200, rng())
    drawn = draw_candidates(split, BALANCED.y, rng(), null=True)
    for client in range(5):
        labels = BALANCED.y[drawn.index[drawn.owner == client]]
        assert np.bincount(labels).tolist() == [5] * 4
    assert np.bincount(BALANCED.y[drawn.index[drawn.owner == -1]]).tolist() == [25] * 4


def test_a_null_run_without_records_for_every_client_is_refused():
    split = draw(BALANCED, Stratified(samples_per_client=4), 140, 40, rng())
    message = r"^metrics.null_run=True: expected held-out records .*, 40 are left for 140 clients$"
    with pytest.raises(ConfigError, match=message):
        draw_candidates(split, BALANCED.y, rng(), null=True)


@pytest.mark.parametrize(
    ("partition", "clients", "nonmembers", "message"),
    [
        (
            Iid(samples_per_client=60),
            5,
            9,
            "candidates.nonmembers=9: expected at least 10, and records for them "
            "(300 held-out records are free, ",
        ),
        (
            Stratified(samples_per_client=148),
            4,
            100,
            "candidates.nonmembers=100: expected at least 12, and records for them "
            "(8 held-out records are free, 2 of the rarest class)",
        ),
        (Iid(), 501, 100, "num_clients=501: expected in [1, 500] (500 records to share out)"),
    ],
)
def test_too_few_records_are_refused_by_the_key_that_asked_for_them(
    partition, clients, nonmembers, message
):
    with pytest.raises(ConfigError) as caught:
        draw(BALANCED, partition, clients, nonmembers, rng())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_default_split_has_the_same_hash_in_another_process():
    code = (
        "import numpy as np\n"
        "from fedmia.datasets.digits import Digits\n"
        "from fedmia.partition import Stratified\n"
        "from fedmia.split import draw\n"
        "data = Digits(label_noise=0.2).load(np.random.default_rng(1))\n"
        "split = draw(data, Stratified(samples_per_client=20), 10, 900, np.random.default_rng(2))\n"
    )
    here: dict[str, Any] = {}
    exec(code, here)
    assert [len(part) for part in here["split"].shards] == [20] * 10
    assert (len(here["split"].nonmembers), len(here["split"].auxiliary)) == (900, 697)
    command = [sys.executable, "-c", code + "print(split.sha256)"]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert there.strip() == here["split"].sha256


def test_the_hash_covers_the_index_arrays_and_the_records():
    split = draw(BALANCED, Iid(), 5, 100, rng())
    split.verify(BALANCED)
    assert draw(BALANCED, Iid(), 5, 100, rng(1)).sha256 != split.sha256
    changed = make(np.arange(600) % 4)
    changed.x[3] += 1
    with pytest.raises(ConfigError, match="expected the records it was drawn from"):
        split.verify(changed)


def test_a_saved_split_is_read_back_whole(tmp_path):
    split = draw(BALANCED, Dirichlet(), 5, 100, rng())
    path = tmp_path / "split.npz"
    split.save(path)
    read = Split.load(path)
    assert [p.name for p in tmp_path.iterdir()] == ["split.npz"]
    assert read.sha256 == split.sha256
    for mine, theirs in zip(
        [*split.shards, split.nonmembers, split.auxiliary],
        [*read.shards, read.nonmembers, read.auxiliary],
        strict=True,
    ):
        assert mine.dtype == theirs.dtype == np.int64
        assert mine.tolist() == theirs.tolist()
    read.verify(BALANCED)


def test_a_damaged_file_is_named_in_one_line_wherever_the_damage_is(tmp_path):
    split = draw(BALANCED, Iid(), 5, 100, rng())
    path = tmp_path / "split.npz"
    with pytest.raises(ConfigError, match=f"^split={path}: expected an existing file$"):
        Split.load(path)
    split.save(path)
    whole = path.read_bytes()
    places = [*range(0, 300, 2), *range(len(whole) - 400, len(whole), 3)]
    damaged = [whole[:place] for place in range(0, len(whole), 197)]
    damaged += [whole[:k] + bytes([whole[k] ^ 0x5A]) + whole[k + 1 :] for k in places]
    messages = []
    for content in damaged:
        path.write_bytes(content)
        # what harms nothing but, say, a time stamp may pass: the content is verified
        with note(messages):
            Split.load(path).verify(BALANCED)
    assert len(messages) > 100
    assert all(m.startswith("split=") and "\n" not in m for m in messages)
