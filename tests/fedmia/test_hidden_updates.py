"""Under secure aggregation the server's transcript has no updates, and attacks say what is left."""

from dataclasses import replace
from types import SimpleNamespace

import masking
import numpy as np
import pytest
import torch

from fedmia.attacks.base import NotApplicableError, View
from fedmia.config import compose
from fedmia.document import document
from fedmia.errors import ConfigError
from fedmia.evaluation import evaluate, targets
from fedmia.experiment import _narrow
from fedmia.observer import Observer
from fedmia.preparation import prepare
from fedmia.recording import train
from fedmia.records import Capability, implied
from fedmia.signals import Signals
from fedmia.transcript import Transcript
from fedmia.truth import Truth
from fedmia.vantages import Aggregate, FinalModel, MaskedServer, Participant, Server

ROUNDS = 4
SETTINGS = [
    "dataset=breast_cancer",
    "model=logistic",
    "pool=serial",
    "partition.samples_per_client=20",
    "attack=[yeom_loss,loss_series,avg_cosine,fedmia,aggregate_cosine,source_inference]",
    "dataset.label_noise=0.5",
    "candidates.nonmembers=200",
    "metrics.bootstrap=100",
    f"num_clients={masking.CLIENTS}",
    f"num_rounds={ROUNDS}",
]
MASKS = ["strategy._target_=masking.MaskedAvg", "client._target_=masking.Masking"]
HIDDEN = "vantage 'server' under toy_masks shows only their sum"
ON_SUMS = {"yeom_loss", "loss_series_global", "aggregate_cosine"}


def record(stage, run_dir):
    training = stage.pool.run(
        stage.federation(),
        masking.CLIENTS,
        stage.seed,
        lambda grid: train(stage, grid, run_dir, lambda server_round, accuracy: None),
    )
    assert training.failure is None
    return SimpleNamespace(
        stage=stage,
        training=training,
        truth=Truth(training.nodes, stage.split),
        transcript=Transcript(run_dir / "transcript"),
    )


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    return record(prepare(compose(SETTINGS + MASKS)), tmp_path_factory.mktemp("masked"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return record(prepare(compose(SETTINGS)), tmp_path_factory.mktemp("plain"))


def measured(run, observer=None):
    """Return who is asked about and what came of it, from a vantage on the same run."""
    stage = replace(run.stage, observer=observer or run.stage.observer)
    transcript = _narrow(run.transcript, stage, run.truth)
    examples = stage.dataset.examples(stage.candidates.index)
    view = View(transcript, Signals(transcript, stage.model, examples, None))
    who = targets(stage, view, run.truth.nodes)
    return stage, who, evaluate(stage, view, who, None)


def test_the_servers_transcript_holds_words_and_sums_and_no_update(masked, plain):
    transcript = masked.transcript

    assert (transcript.vantage, transcript.hides_updates) == ("server", "toy_masks")
    assert transcript.shows == {Capability.GLOBAL_MODEL, Capability.MANY_ROUNDS}
    assert transcript.rounds == (1, 2, 3, 4)
    assert transcript.node_ids == ()
    for seen, there in zip(transcript, plain.transcript, strict=True):
        assert seen.updates == ()
        assert seen.recipients == there.recipients
        assert [m.node_id for m in seen.masked] == sorted(masked.truth.nodes)
        total = sum(m.words for m in seen.masked).astype(np.int32) / masking.SCALE
        after = np.concatenate(
            [(seen.params[k] + v).ravel() for k, v in seen.aggregate.items()]
        ).astype(np.float64)
        np.testing.assert_allclose(total / masking.CLIENTS, after, atol=1e-5)
        for name, change in there.aggregate.items():  # what the plain federation does as well
            np.testing.assert_allclose(seen.aggregate[name], change, atol=1e-4)


def test_the_stage_knows_before_training_what_will_be_hidden(masked, plain):
    assert masked.stage.vantage == MaskedServer("toy_masks")
    assert plain.stage.vantage == Server()
    nodes = masked.truth.nodes
    for name, kind in (("aggregate", Aggregate), ("final_model", FinalModel)):
        assert replace(masked.stage, observer=Observer(name)).stand(nodes) == kind()
    own = replace(masked.stage, observer=Observer("participant", participant=2)).stand(nodes)
    assert nodes[own.node_id] == 2


def test_only_attacks_on_the_sum_are_left_and_the_others_say_why(masked):
    stage, who, found = measured(masked)

    rows = {row["name"]: row for row in found.attacks}
    assert {name for name, row in rows.items() if row["status"] == "ok"} == ON_SUMS
    for name in rows.keys() - ON_SUMS:
        assert rows[name]["status"] == "not_applicable"
        assert rows[name]["reason"].startswith("needs client updates, ")
        assert rows[name]["reason"].endswith(HIDDEN)
    assert {row["vantage"] for row in found.attacks} == {"server"}
    assert (who.nodes, who.clients) == ((None,), (0,))
    assert np.array_equal(who.owner, np.minimum(stage.candidates.owner, 0))
    (note,) = (n for n in document(stage, found, who, {})["notes"] if "toy_masks" in n)
    assert note == (
        "vantage 'server' under toy_masks shows only the sum of a round's updates: "
        "all clients are asked about as one"
    )


@pytest.mark.parametrize("run", ["masked", "plain"])
def test_attacks_on_the_sum_are_worth_the_same_to_whoever_sees_it(run, masked, plain):
    run = {"masked": masked, "plain": plain}[run]
    stage, who, found = measured(run, Observer("aggregate"))
    _, _, there = measured(masked)

    rows = {row["name"]: row for row in found.attacks}
    assert who.nodes == (None,)
    assert {row["vantage"] for row in found.attacks} == {"aggregate"}
    assert {name for name, row in rows.items() if row["status"] == "ok"} == ON_SUMS
    for row in there.attacks:
        if row["status"] == "ok":
            assert rows[row["name"]]["auc"] == pytest.approx(row["auc"], abs=0.02)
            assert rows[row["name"]]["auc_per_round"] is not None
        else:
            reason = rows[row["name"]]["reason"]
            assert reason.endswith("; vantage 'aggregate' shows several rounds, the global model")
    assert not any("only the sum" in note for note in document(stage, found, who, {})["notes"])


def test_all_attacks_that_need_updates_are_refused_with_one_reason_and_no_others():
    stage = prepare(compose([*SETTINGS, *MASKS, "attack=all", "knowledge.known_members=0.2"]))
    vantage, shown = stage.vantage, stage.vantage.shows | stage.gives
    refused = {
        name for name, attack in stage.attacks.items() if attack.requirements() - implied(shown)
    }
    assert {"fedmia_i", "avg_cosine", "source_inference"} <= refused
    assert not ON_SUMS & refused
    for name, attack in stage.attacks.items():
        if name in refused:
            with pytest.raises(NotApplicableError) as caught:
                attack.check_applicable(vantage.name, shown, vantage.hides_updates)
            assert str(caught.value).startswith("needs client updates, ")
            assert str(caught.value).endswith(HIDDEN)
        else:
            attack.check_applicable(vantage.name, shown, vantage.hides_updates)


def test_attacks_of_which_none_can_run_are_refused_before_training():
    with pytest.raises(ConfigError) as caught:
        prepare(compose([*SETTINGS, *MASKS, "attack=fedmia"]))

    assert str(caught.value) == (
        f"attack=fedmia_i, fedmia_ii: needs client updates, updates of several clients, {HIDDEN}"
    )


# from one run, several adversaries


def standing(run, observer, transcript=None):
    stage = replace(run.stage, observer=observer)
    return _narrow(transcript or run.transcript, stage, run.truth)


def test_what_the_server_recorded_holds_what_the_others_saw(masked):
    aggregate = standing(masked, Observer("aggregate"))
    assert aggregate.shows == Aggregate.shows
    assert [(o.masked, o.recipients) for o in aggregate] == [((), ())] * ROUNDS
    assert all(aggregate.summed)
    participant = standing(masked, Observer("participant", participant=1))
    assert participant.summed == (True, True, True, False)
    assert all(o.masked == () for o in participant)
    final = standing(masked, Observer("final_model"))
    assert len(final) == 0
    assert final.final is not None
    assert standing(masked, Observer("server")) is masked.transcript


@pytest.mark.parametrize("wanted", ["server", "participant"])
@pytest.mark.parametrize("run", ["masked", "plain"])
def test_what_the_aggregate_shows_holds_no_single_client(run, wanted, masked, plain, tmp_path):
    run = {"masked": masked, "plain": plain}[run]
    recorded = record(replace(run.stage, observer=Observer("aggregate")), tmp_path)
    assert [(o.recipients, o.updates, o.masked) for o in recorded.transcript] == [
        ((), (), ())
    ] * ROUNDS
    assert all(recorded.transcript.summed)

    with pytest.raises(ConfigError) as caught:
        standing(recorded, Observer(wanted))

    assert str(caught.value) == (
        f"observer.vantage={wanted}: expected one that sees no more than 'aggregate', which "
        "recorded this run"
    )
    assert standing(recorded, Observer("final_model")).final is not None


@pytest.mark.parametrize("wanted", ["server", "aggregate", "final_model"])
def test_a_participants_record_is_nobody_elses(wanted, masked, tmp_path):
    recorded = record(replace(masked.stage, observer=Observer("participant")), tmp_path)
    assert recorded.transcript.shows == Participant.shows

    with pytest.raises(ConfigError, match="sees no more than 'participant'"):
        standing(recorded, Observer(wanted))
