"""Flags by node held against the truth, by hand; and the field in the results of runs."""

from types import SimpleNamespace

import pytest

from fedmia import config, experiment, results
from fedmia.recording import Training
from fedmia.suspects import suspicion
from fedmia.suspicion import Flag

NODES = {70: 0, 50: 1, 60: 2, 40: 3, 30: 4}


def attacking(*clients, since=1):
    return SimpleNamespace(attackers=lambda num_clients: frozenset(clients), from_round=since)


def stage(holders=4, **attackers):
    settings = SimpleNamespace(num_clients=len(NODES))
    return SimpleNamespace(holders=holders, attackers=attackers, config=settings)


def training(*flags, **fields):
    return Training(NODES, {}, flags=list(flags), **fields)


def test_flags_are_held_against_who_attacks():
    flags = [
        Flag(4, 40, "far", {"z": 9.0}, isolated=False),
        Flag(2, 50, "odd", isolated=False),
        Flag(5, 60, "low", {"reputation": 0.1}),
    ]
    found = suspicion(stage(holders=5, flip=attacking(2, 3)), training(*flags))
    assert found is not None
    assert [(f["round"], f["client"]) for f in found["flags"]] == [(2, 1), (4, 3), (5, 2)]
    assert found["flags"][1]["evidence"] == {"z": 9.0}
    assert found["attackers"] == [2, 3]
    assert (found["detection_rate"], found["isolation_rate"]) == (1.0, 0.5)
    assert found["false_positive_rate"] == pytest.approx(1 / 3)
    assert found["false_isolation_rate"] == 0.0
    assert found["first_detection"] == 4


def test_a_flag_before_the_attack_is_no_detection():
    early = [Flag(2, 40, "odd"), Flag(2, 60, "odd"), Flag(7, 60, "odd")]
    found = suspicion(
        stage(flip=attacking(3, since=6), more=attacking(2, since=7)), training(*early)
    )
    assert found is not None
    assert (found["detection_rate"], found["first_detection"]) == (0.5, 7)
    assert found["false_positive_rate"] == 0.0


def test_planted_clients_are_neither_attackers_nor_honest():
    found = suspicion(stage(holders=4), training(Flag(1, 30, "odd")))
    assert found is not None
    assert found["false_positive_rate"] == 0.0
    assert found["detection_rate"] is None
    assert found["first_detection"] is None


def test_reputations_are_by_client_and_strangers_are_left_out():
    rows = [(1, {40: 0.5, 70: 0.25, 999: 0.75})]
    found = suspicion(
        stage(), training(reputations=rows, isolations=[(1, frozenset({40, 70, 999}))])
    )
    assert found is not None
    assert found["reputations"] == [
        {"round": 1, "clients": {"0": 0.25, "3": 0.5}, "isolated": [0, 3]}
    ]


def test_there_is_nothing_to_say_of_a_run_without_flags_reputations_and_attackers():
    assert suspicion(stage(), training()) is None
    missed = suspicion(stage(flip=attacking(1)), training())
    assert missed is not None
    assert missed["detection_rate"] == 0.0


SMALL = [
    "dataset=breast_cancer",
    "model=logistic",
    "pool=serial",
    "num_rounds=5",
    "partition.samples_per_client=20",
    "candidates.nonmembers=100",
    "metrics.bootstrap=100",
    "attack=[yeom_loss]",
]


def test_a_run_keeps_its_suspicion_when_it_is_attacked_again(tmp_path):
    overrides = [*SMALL, "strategy=reputation", "strategy.grace=2"]
    overrides += ["client/attackers=[sign_flip]"]
    settings = config.compose([*overrides, f"output_dir={tmp_path}"])
    config.save(settings, tmp_path / "run" / ".hydra", overrides)
    result = experiment.run(settings, tmp_path / "run")
    found = result["suspicion"]
    assert found["attackers"] == [8, 9]
    assert found["detection_rate"] == 1.0
    assert found["false_isolation_rate"] == 0.0
    assert [row["round"] for row in found["reputations"]] == [1, 2, 3, 4, 5]
    assert set(found["reputations"][0]["clients"]) == {str(k) for k in range(10)}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "client 9 (attacks)" in page
    folder, again = experiment.attack(tmp_path / "run", ["attack=loss_series"])
    assert again["suspicion"] == found
    assert results.read(folder / "result.json")["suspicion"] == found


def test_a_plain_run_has_no_such_field(tmp_path):
    settings = config.compose([*SMALL, "num_rounds=2", f"output_dir={tmp_path}"])
    assert "suspicion" not in experiment.run(settings, tmp_path / "run")
