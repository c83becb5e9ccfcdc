"""Where the server sees sums of groups its transcript holds them, and attacks ask about groups."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedmia.attacks.base import View
from fedmia.config import compose
from fedmia.document import document
from fedmia.errors import ConfigError
from fedmia.evaluation import evaluate, targets
from fedmia.experiment import _narrow
from fedmia.observer import Observer
from fedmia.preparation import prepare
from fedmia.recording import train
from fedmia.signals import Signals
from fedmia.suspicion import Flag, against_members
from fedmia.transcript import Transcript
from fedmia.truth import Truth
from fedmia.vantages import GroupedServer, MaskedServer, Server

CLIENTS, ROUNDS = 7, 2
SETTINGS = [
    "dataset=breast_cancer",
    "model=logistic",
    "pool=serial",
    "partition.samples_per_client=20",
    "attack=[avg_cosine,yeom_loss]",
    "candidates.nonmembers=100",
    "metrics.bootstrap=100",
    f"num_clients={CLIENTS}",
    f"num_rounds={ROUNDS}",
]
GROUPED = ["strategy=grouped_sums", "strategy.protocol.clip=8.0"]
"""A group of four and one of three."""


def record(stage, run_dir):
    training = stage.pool.run(
        stage.federation(),
        CLIENTS,
        stage.seed,
        lambda grid: train(stage, grid, run_dir, lambda server_round, accuracy: None),
    )
    assert training.failure is None
    truth = Truth(training.nodes, stage.split)
    transcript = Transcript(run_dir / "transcript")
    return SimpleNamespace(stage=stage, training=training, truth=truth, transcript=transcript)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    return record(prepare(compose(SETTINGS + GROUPED)), tmp_path_factory.mktemp("grouped"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    stage = prepare(compose([*SETTINGS, "strategy=fedmedian"]))
    return record(stage, tmp_path_factory.mktemp("plain"))


def seen_from(run, observer=None):
    stage = replace(run.stage, observer=observer or run.stage.observer)
    transcript = _narrow(run.transcript, stage, run.truth)
    examples = stage.dataset.examples(stage.candidates.index)
    view = View(transcript, Signals(transcript, stage.model, examples, None))
    return stage, view, targets(stage, view, run.truth.nodes)


def test_the_transcript_holds_the_mean_of_each_group_and_no_update_of_one_client(grouped, plain):
    groups = grouped.stage.groups(grouped.truth.nodes)
    assert sorted(map(len, groups.values())) == [3, 4]
    assert grouped.transcript.rounds == (1, 2)
    assert grouped.transcript.node_ids == tuple(groups)
    first, single = grouped.transcript[0], plain.transcript[0]
    assert len(first.masked) == CLIENTS
    alone = {update.node_id: update for update in single.updates}
    assert alone.keys() == grouped.truth.nodes.keys()
    for update in first.updates:
        members = [alone[node] for node in groups[update.node_id]]
        assert update.num_examples == sum(one.num_examples for one in members)
        for name, change in update.delta.items():
            mean = np.mean([one.delta[name] for one in members], axis=0)  # of shards of one size
            np.testing.assert_allclose(change, mean, rtol=0, atol=2e-4)
            for one in alone.values():
                assert np.abs(change - one.delta[name]).max() > 1e-3


@pytest.mark.slow
def test_with_ray_the_same_sums_are_seen(grouped, tmp_path):
    settings = [*SETTINGS, *GROUPED, "pool=ray", "pool.num_actors=1"]
    there = record(prepare(compose(settings)), tmp_path)
    for ours, theirs in zip(grouped.transcript, there.transcript, strict=True):
        for one, other in zip(ours.updates, theirs.updates, strict=True):
            assert one.node_id == other.node_id
            assert all(np.array_equal(one.delta[name], other.delta[name]) for name in one.delta)
    final = grouped.transcript.final
    assert all(np.array_equal(final[name], there.transcript.final[name]) for name in final)


def test_the_meta_data_name_the_vantage_and_the_defence(grouped):
    meta = json.loads((grouped.transcript.path / "meta.json").read_text())
    assert (meta["vantage"], meta["hides_updates"]) == ("server", "secagg_plus")
    assert grouped.transcript.shows == Server.shows
    assert grouped.stage.vantage == GroupedServer("secagg_plus")


def test_a_group_is_asked_about_as_one_client_with_all_that_its_clients_hold(grouped):
    stage, _, who = seen_from(grouped)
    nodes, owner = grouped.truth.nodes, stage.candidates.owner
    groups = stage.groups(nodes)
    assert set(who.nodes) == set(groups)
    for row, (node, client) in enumerate(zip(who.nodes, who.clients, strict=True)):
        members = [nodes[n] for n in groups[node]]
        assert client == min(members)
        assert np.array_equal(who.owner == row, np.isin(owner, members))
    assert np.array_equal(who.owner == -1, owner == -1)
    assert list(who.clients) == sorted(who.clients)


def test_attacks_on_updates_run_on_sums_of_groups_and_the_result_says_so(grouped):
    stage, view, who = seen_from(grouped)
    found = evaluate(stage, view, who, None)
    rows = {row["name"]: (row["status"], row.get("reason")) for row in found.attacks}
    assert {rows[name] for name in ("yeom_loss_local", "avg_cosine")} == {("ok", None)}, rows
    assert all(scores.shape[0] == 2 for scores in found.scores.values())
    (note,) = (n for n in document(stage, found, who, {})["notes"] if "is asked about" in n)
    assert note == (
        "vantage 'server' under secagg_plus shows the sum of each of 2 groups of 3 or 4 clients: "
        "a group is asked about as one client, and named by its first"
    )


@pytest.mark.parametrize("name", ["aggregate", "final_model"])
def test_from_elsewhere_no_sum_of_a_group_is_seen(grouped, name):
    stage, view, who = seen_from(grouped, Observer(name))
    assert who.nodes == (None,)
    assert view.transcript.node_ids == ()
    assert all(not seen.updates and not seen.masked for seen in view.transcript)
    assert stage.shown_sizes == stage.shard_sizes


def test_a_curious_client_sees_its_models_alone(grouped):
    _, view, who = seen_from(grouped, Observer("participant", participant=3))
    assert who.nodes == (None,)
    assert all(not seen.updates and not seen.masked for seen in view.transcript)
    assert len(view.transcript) == ROUNDS


def test_shadows_have_as_many_records_as_groups(grouped):
    assert sorted(grouped.stage.shown_sizes) == [60, 80]
    assert sum(grouped.stage.shown_sizes) == sum(grouped.stage.shard_sizes)


def test_the_sum_of_all_alone_has_another_vantage():
    nodes = {50: 1, 70: 0}
    assert Observer("server").stand(nodes, "secagg_plus", True) == GroupedServer("secagg_plus")
    assert Observer("server").stand(nodes, "secagg_plus") == MaskedServer("secagg_plus")
    for name in ("aggregate", "participant", "final_model"):
        assert Observer(name).stand(nodes, "secagg_plus", True) == Observer(name).stand(nodes)


def test_a_flag_against_a_group_is_one_against_each_of_its_clients():
    flags = [Flag(1, 5, "far away", {"z": 9.0}), Flag(2, 9, "alone")]
    found = against_members(flags, {5: (5, 7), 6: (6,)})
    reason = "the sum of its group of 2: far away"
    assert found == [
        Flag(1, 5, reason, {"z": 9.0}),
        Flag(1, 7, reason, {"z": 9.0}),
        Flag(2, 9, "alone"),
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["strategy@strategy.inner=krum", "strategy.inner.byzantine=2"],
            "strategy.inner.byzantine=2: expected more clients: Krum needs 2·byzantine + 3 clients "
            "in a round, 2 are asked; each of 2 groups stands for a client",
        ),
        (
            ["strategy@strategy.inner=dp_central"],
            "strategy.inner=DpCentral: expected a rule without noise of its own: its bound would "
            "be one of groups, not clients",
        ),
        (
            ["client/defenses=[]"],
            "client/defenses=[]: expected secagg_plus once: strategy=secagg_plus needs it at the "
            "clients",
        ),
        (
            ["strategy.group_size=3", "strategy.protocol.dropout=0"],
            "strategy.group_size=3: expected one for which no group is smaller than 3; 7 clients "
            "make 3 groups of 2 or more",
        ),
        (
            ["client.dropout=0.2"],
            "client.dropout=0.2: expected at most 0, so that on average 3 of 3 clients stay, as it "
            "takes",
        ),
    ],
)
def test_what_cannot_work_with_groups_is_refused_before_training(settings, said):
    with pytest.raises(ConfigError) as caught:
        prepare(compose([*SETTINGS, *GROUPED, *settings]))
    assert str(caught.value) == said
