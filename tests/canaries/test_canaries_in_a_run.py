"""Canaries in whole federations: they take part as others do, and are found."""

from dataclasses import replace

import numpy as np
import pytest

from fedmia import config, experiment
from fedmia.config import compose
from fedmia.errors import ConfigError
from fedmia.evaluation import targets_among
from fedmia.preparation import prepare
from fedmia.recording import train
from fedmia.transcript import Transcript
from fedmia.truth import Truth

SETTINGS = [
    "dataset=breast_cancer",
    "model=logistic",
    "pool=serial",
    "partition.samples_per_client=10",
    "candidates.nonmembers=100",
    "metrics.bootstrap=100",
    "train.local_epochs=2",
    "attack=[yeom_loss,loss_series]",
    "num_rounds=3",
]
CLIENTS = ["client/canaries=[random_direction]", "num_clients=14"]
EIGHT = [*CLIENTS, "client.canaries.random_direction.count=8"]


def stage_of(*overrides):
    return prepare(compose([*SETTINGS, *overrides]))


def refusal(*overrides):
    with pytest.raises(ConfigError) as caught:
        stage_of(*overrides)
    return str(caught.value)


def trained(stage, folder):
    def main(grid):
        return train(stage, grid, folder, lambda number, accuracy: None)

    return stage.pool.run(stage.federation(), stage.config.num_clients, stage.seed, main)


# canary clients


@pytest.fixture(scope="module")
def with_clients(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients")
    stage = stage_of(*EIGHT)
    return stage, trained(stage, folder), folder


def test_the_last_clients_send_their_directions(with_clients):
    stage, training, folder = with_clients
    assert training.failure is None
    transcript = Transcript(folder / "transcript")
    sent = stage.canary_clients.directions(62)
    for observation in transcript:
        by_client = {training.nodes[u.node_id]: u for u in observation.updates}
        assert len(by_client) == 14
        for j in range(8):
            update = by_client[6 + j]
            delta = np.concatenate([v.reshape(-1) for v in update.delta.values()])
            np.testing.assert_allclose(delta, sent[j], atol=1e-5)
            assert update.num_examples == 10
        others = [
            np.concatenate([v.reshape(-1) for v in by_client[k].delta.values()]) for k in range(6)
        ]
        assert all(np.abs(sent @ v / np.linalg.norm(v)).max() < 0.8 for v in others)


def test_the_watch_saw_every_model_of_the_training(with_clients):
    stage, training, folder = with_clients
    transcript = Transcript(folder / "transcript")
    models = [o.params for o in transcript] + [training.params]
    vectors = [np.concatenate([v.reshape(-1) for v in m.values()]) for m in models]
    change = vectors[-1] - vectors[0]
    expected = stage.canary_clients.directions(62) @ change / np.linalg.norm(change)
    assert list(training.watch.since_start) == [1, 2, 3]
    np.testing.assert_allclose(training.watch.since_start[3], expected, atol=1e-5)


def test_canary_clients_are_no_targets_and_hold_no_members(with_clients):
    stage, training, folder = with_clients
    who = targets_among(stage, training.nodes)
    assert who.clients == tuple(range(6))
    assert set(who.owner) == {-1, *range(6)}
    assert stage.shard_sizes == [10] * 6
    assert stage.stack.weights == [10] * 14
    truth = Truth.load(folder)
    assert [len(shard) for shard in truth.split.shards] == [10] * 6 + [0] * 8


@pytest.mark.parametrize(
    "overrides",
    [
        ["strategy=secagg_plus"],
        ["observer.vantage=aggregate"],
        ["observer.vantage=participant", "observer.participant=5"],
        ["observer.vantage=final_model"],
        ["strategy.fraction_evaluate=1.0"],
        ["metrics.null_run=true"],
        ["client.canaries.random_direction.num_examples=null"],
    ],
)
def test_they_take_part_whatever_the_strategy_and_the_vantage(tmp_path, overrides):
    settings = compose([*SETTINGS, *EIGHT, "num_rounds=2", "attack=yeom_loss", *overrides])
    result = experiment.run(settings, tmp_path / "run")
    assert result["status"] == "ok", result["reason"]
    assert not result["faults"]
    found = result["privacy"]["canary_clients"]
    assert (found["count"], found["dimension"]) == (8, 62)
    assert [entry["round"] for entry in found["per_round"]] == [1, 2]
    assert found["epsilon_estimate_final"] > 0
    members = result["candidates"]["members"]
    assert members <= 60


def test_masks_do_not_change_what_the_auditor_measures(tmp_path):
    found = []
    for name, strategy in (("open", []), ("masked", ["strategy=secagg_plus"])):
        (tmp_path / name).mkdir()
        found.append(trained(stage_of(*EIGHT, *strategy), tmp_path / name).watch)
    np.testing.assert_allclose(found[0].since_start[3], found[1].since_start[3], atol=1e-3)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ([*CLIENTS], "client.canaries.random_direction.count=20: expected at least 8 and at most "),
        (
            [*EIGHT, "observer.vantage=participant", "observer.participant=6"],
            "observer.participant=6: expected in 0..5",
        ),
        ([*EIGHT, "partition.samples_per_client=90"], "partition.samples_per_client=90: expected"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(overrides, line):
    assert refusal(*overrides).startswith(line)


# canary records

RECORDS = ["canaries=mislabelled", "canaries.count=80", "num_clients=4", "train.local_epochs=20"]


def test_a_federation_shows_mislabelled_canaries_more_than_natural_members(tmp_path):
    aucs = {}
    for name, canaries in (("natural", RECORDS[2:]), ("canaries", RECORDS)):
        digits = ["dataset=digits", "model=mlp", "partition.samples_per_client=20"]
        settings = compose([*SETTINGS, *canaries, *digits, "train.local_epochs=5"])
        result = experiment.run(settings, tmp_path / name)
        assert result["status"] == "ok", result["reason"]
        row = next(r for r in result["attacks"] if r["name"] == "loss_series")
        aucs[name] = row["auc"]
    assert aucs["canaries"] > aucs["natural"] + 0.1
    assert result["candidates"]["members"] + result["candidates"]["nonmembers"] == 80
    assert {g["name"]: g["status"] for g in result["guards"]}["disjoint"] == "pass"
    assert all(b["status"] == "ok" for b in result["baselines"])


def test_canaries_that_nobody_trained_on_are_at_chance(tmp_path):
    """Coins of which the shards know nothing."""
    stage = stage_of(*RECORDS, "model=mlp")
    shards = stage.split.shards
    own = tuple(shard[shard < stage.split.canaries[0]] for shard in shards)
    stage = replace(stage, split=replace(stage.split, shards=own))
    result = experiment.run(stage.config, tmp_path / "run", stage=stage)
    for row in result["attacks"]:
        low, high = row["auc_ci"]
        assert low < 0.5 < high


@pytest.mark.parametrize(
    "overrides",
    [
        ["strategy=secagg_plus"],
        ["observer.vantage=participant"],
        ["observer.vantage=final_model"],
        ["canaries=crafted", "canaries.steps=2"],
        [
            "client/canaries=[random_direction]",
            "num_clients=12",
            "client.canaries.random_direction.count=8",
        ],
        ["partition.samples_per_client=null"],
        ["attack=[fedmia,lira]", "knowledge.shadow_models=4"],
    ],
)
def test_records_are_asked_about_whatever_the_rest(tmp_path, overrides):
    few = ["train.local_epochs=1", "num_rounds=2", "attack=yeom_loss", "canaries.count=40"]
    settings = compose([*SETTINGS, *RECORDS, *few, *overrides])
    result = experiment.run(settings, tmp_path / "run")
    assert result["status"] == "ok", result["reason"]
    asked = result["candidates"]
    if "observer.vantage=participant" in overrides:
        assert 25 <= asked["members"] + asked["nonmembers"] < 40
    else:
        assert asked["members"] + asked["nonmembers"] == 40


def test_a_transcript_can_be_attacked_again(tmp_path):
    folder = tmp_path / "run"
    crafted = ["canaries=crafted", "canaries.steps=2", "num_rounds=2", "train.local_epochs=1"]
    settings = compose([*SETTINGS, *RECORDS, *crafted])
    config.save(settings, folder / ".hydra", [])
    first = experiment.run(settings, folder)
    _, again = experiment.attack(folder, ["attack=yeom_loss"])
    assert again["candidates"]["split_sha256"] == first["candidates"]["split_sha256"]
    row = {r["name"]: r["auc"] for r in first["attacks"]}
    assert again["attacks"][0]["auc"] == row["yeom_loss"]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["canaries.count=10"], "canaries.count=10: expected at least 20"),
        (["canaries.count=500"], "canaries.count=500: expected at most "),
        (["metrics.null_run=true"], "metrics.null_run=True: expected false with canaries"),
        (["knowledge.known_members=0.5"], "knowledge.known_members=0.5: expected 0 with canaries"),
    ],
)
def test_records_that_do_not_fit_are_refused_before_training(overrides, line):
    assert refusal(*RECORDS, *overrides).startswith(line)
