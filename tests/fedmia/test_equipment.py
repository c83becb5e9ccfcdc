"""Who gets root records, which ones, and what they are kept out of."""

import numpy as np
import pytest

from fedmia import equipment
from fedmia.config import compose
from fedmia.errors import ConfigError
from fedmia.preparation import prepare
from fedmia.root import Root
from fedmia.training import LocalSGD

SMALL = ["pool=serial", "num_rounds=2", "num_clients=4", "candidates.nonmembers=200"]


class Part:
    """What a strategy that asks for records shows of itself."""

    def __init__(self, wanted, inner=()):
        self.root_samples, self.inner, self.root = wanted, inner, None

    def equip(self, root):
        self.root = root


@pytest.fixture
def strategies(monkeypatch):
    """Two parts, one in the other, that ask for 3 and 8 records, and one that asks for none."""
    parts = {"strategy": Part(3), "strategy.inner": Part(8), "strategy.inner.inner": Part(0)}
    monkeypatch.setattr(equipment, "wrapped", lambda strategy: parts.items())
    return parts


def test_each_part_gets_the_first_ones_of_its_own_number(strategies):
    labels = np.arange(40) % 2
    index = equipment.draw_root(None, np.arange(40), labels, np.arange(40), 0)
    assert len(index) == len(set(index)) == 8
    root = Root(None, LocalSGD(), [f"record {i}" for i in index], 0)
    equipment.equip(None, root)
    assert [len(part.root or ()) for part in strategies.values()] == [3, 8, 0]
    assert strategies["strategy"].root.records == root.records[:3]


def test_every_first_few_have_the_classes_of_the_federation(monkeypatch):
    monkeypatch.setattr(equipment, "wrapped", lambda strategy: [("strategy", Part(60))])
    labels = np.repeat([0, 1, 2], [100, 100, 100])
    like = np.concatenate([np.arange(20), np.arange(100, 140)])  # one of 0 to two of 1
    pool = np.concatenate([np.arange(50, 100), np.arange(150, 300)])
    index = equipment.draw_root(None, pool, labels, like, 1)
    for count in (3, 9, 30, 60):
        np.testing.assert_array_equal(
            np.bincount(labels[index[:count]], minlength=3), [count // 3, 2 * count // 3, 0]
        )


def test_a_class_that_runs_out_is_made_up_for_by_others(monkeypatch):
    monkeypatch.setattr(equipment, "wrapped", lambda strategy: [("strategy", Part(10))])
    labels = np.repeat([0, 1], [2, 30])
    index = equipment.draw_root(None, np.arange(32), labels, np.array([0, 2]), 0)
    np.testing.assert_array_equal(np.bincount(labels[index]), [2, 8])


def test_the_result_says_how_many_records_are_the_servers(strategies):
    (line,) = equipment.notes(None)
    assert line.startswith("strategy.inner.root_samples=8: so many held-out records are the server")
    del strategies["strategy"], strategies["strategy.inner"]
    assert equipment.notes(None) == []


def test_root_records_are_nobody_elses():
    stage, without = prepare(compose([*SMALL, "strategy=fltrust"])), prepare(compose(SMALL))
    root = set(stage.root.tolist())
    assert len(root) == 100
    assert not root & set(stage.candidates.index.tolist())
    assert not root & set(np.concatenate(stage.split.shards).tolist())
    assert root <= set(stage.split.auxiliary.tolist())
    assert len(stage.held_out) == len(without.held_out) - 100
    assert len(stage.auxiliary) == len(without.auxiliary) - 100
    mine = {row.tobytes() for row in stage.dataset.examples(stage.root).x}
    for others in (stage.held_out, stage.auxiliary):
        assert not mine & {row.tobytes() for row in others.x}
    assert stage.split.sha256 == without.split.sha256
    assert stage.candidates.sha256 == without.candidates.sha256
    counts = np.bincount(stage.dataset.y[stage.root], minlength=10)
    assert counts.min() >= 9


def test_the_strategy_of_a_stage_has_its_records():
    stage = prepare(compose([*SMALL, "strategy=fltrust", "strategy.root_samples=30"]))
    strategy = stage.strategy()
    np.testing.assert_array_equal(strategy._root.records.y, stage.dataset.y[stage.root])
    assert len(strategy._root) == 30


def test_without_a_part_that_asks_there_is_no_root():
    stage = prepare(compose(SMALL))
    assert stage.root.size == 0
    together = np.concatenate([stage.split.nonmembers, stage.split.auxiliary])
    np.testing.assert_array_equal(stage.held_out.x, stage.dataset.x[together])


def test_in_a_null_run_no_root_record_is_asked_about():
    overrides = [*SMALL, "strategy=fltrust", "metrics.null_run=true", "strategy.root_samples=20"]
    stage = prepare(compose(overrides))
    assert not set(stage.root.tolist()) & set(stage.candidates.index.tolist())


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (
            0,
            "strategy.root_samples=0: expected at least 1: FLTrust compares clients with the "
            "server's own update",
        ),
        (
            5000,
            "strategy.root_samples=5000: expected at most 1517, the held-out records that no "
            "attack is asked about (see candidates.reserve)",
        ),
    ],
)
def test_too_few_and_too_many_are_refused_in_one_line(value, line):
    with pytest.raises(ConfigError) as caught:
        prepare(compose([*SMALL, "strategy=fltrust", f"strategy.root_samples={value}"]))
    assert str(caught.value) == line
