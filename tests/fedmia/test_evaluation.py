from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedmia import proved
from fedmia.attacks.base import Attack, NotApplicableError, View
from fedmia.attacks.loss_series import LossSeries
from fedmia.attacks.yeom_loss import YeomLoss
from fedmia.config import compose
from fedmia.evaluation import evaluate, targets
from fedmia.membership import Membership
from fedmia.observer import Observer
from fedmia.preparation import prepare
from fedmia.recording import train
from fedmia.records import KNOWLEDGE, Capability, Observation
from fedmia.signals import Signals
from fedmia.transcript import Transcript, TranscriptWriter

CLIENTS, ROUNDS = 4, 5
SETTINGS = [
    "dataset=breast_cancer",
    "model=logistic",
    "pool=serial",
    "partition.samples_per_client=20",
    "attack=[yeom_loss,loss_series,avg_cosine,fedmia]",
    "dataset.label_noise=0.5",
    "candidates.nonmembers=200",
    "metrics.bootstrap=100",
    f"num_clients={CLIENTS}",
    f"num_rounds={ROUNDS}",
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def stage():
    return prepare(compose(SETTINGS))


@pytest.fixture(scope="module")
def run(stage, tmp_path_factory):
    """A recorded run: its transcript, as the server saw it, and which node is which client."""
    run_dir = tmp_path_factory.mktemp("run")
    training = stage.pool.run(
        stage.federation(),
        CLIENTS,
        stage.seed,
        lambda grid: train(stage, grid, run_dir, lambda server_round, accuracy: None),
    )
    return SimpleNamespace(transcript=Transcript(run_dir / "transcript"), nodes=training.nodes)


def standing(stage, run, vantage, participant=0):
    """Return the stage and the view of another vantage on the same run."""
    stage = replace(stage, observer=Observer(vantage, participant=participant))
    where = stage.observer.stand(run.nodes)
    transcript = run.transcript.through(where.name, where.shows, where.view)
    return stage, look(stage, transcript)


def look(stage, transcript):
    examples = stage.dataset.examples(stage.candidates.index)
    return View(transcript, Signals(transcript, stage.model, examples, None))


def partial(run, path, who):
    """Write the run again with only the updates of the clients that ``who`` names by round."""
    writer = TranscriptWriter(path, "server", frozenset(Capability) - KNOWLEDGE)
    for seen in run.transcript:
        updates = tuple(u for u in seen.updates if run.nodes[u.node_id] in who[seen.round])
        writer.append(Observation(seen.round, seen.params, seen.recipients, updates))
    writer.finish(run.transcript.final)
    return Transcript(path)


def rows(measured):
    return {row["name"]: row for row in measured.attacks}


# who is asked about


def test_the_server_asks_about_every_client_by_its_own_row(stage, run):
    who = targets(stage, look(stage, run.transcript), run.nodes)

    assert who.clients == (0, 1, 2, 3)
    assert [run.nodes[node] for node in who.nodes] == [0, 1, 2, 3]
    assert np.array_equal(who.owner, stage.candidates.owner)


def test_a_client_that_was_never_seen_is_no_target_and_its_records_are_left_out(
    stage, run, tmp_path
):
    transcript = partial(run, tmp_path, dict.fromkeys(range(1, ROUNDS + 1), (0, 2, 3)))

    who = targets(stage, look(stage, transcript), run.nodes)

    assert who.clients == (0, 2, 3)
    assert [run.nodes[node] for node in who.nodes] == [0, 2, 3]
    wanted = {-1: -1, 0: 0, 1: -2, 2: 1, 3: 2}
    assert who.owner.tolist() == [wanted[k] for k in stage.candidates.owner.tolist()]


def test_where_nobody_was_seen_everybody_is_asked_about(stage, run, tmp_path):
    transcript = partial(run, tmp_path, dict.fromkeys(range(1, ROUNDS + 1), ()))

    who = targets(stage, look(stage, transcript), run.nodes)

    assert who.clients == (0, 1, 2, 3)
    assert np.array_equal(who.owner, stage.candidates.owner)


def test_a_participant_asks_about_the_federation_without_its_own_records(stage, run):
    stage, view = standing(stage, run, "participant", participant=2)

    who = targets(stage, view, run.nodes)

    owner = stage.candidates.owner
    assert (who.nodes, who.clients) == ((None,), (0,))
    assert (who.owner[owner == 2] == -2).all()
    assert (who.owner[(owner >= 0) & (owner != 2)] == 0).all()
    assert (who.owner[owner == -1] == -1).all()


def test_the_final_model_is_asked_about_everyone(stage, run):
    stage, view = standing(stage, run, "final_model")

    who = targets(stage, view, run.nodes)

    assert who.nodes == (None,)
    assert np.array_equal(who.owner, np.minimum(stage.candidates.owner, 0))


# what comes of it


@pytest.fixture(scope="module")
def measured(stage, run):
    view = look(stage, run.transcript)
    return evaluate(stage, view, targets(stage, view, run.nodes), None)


def test_every_attack_and_baseline_has_a_row(stage, measured):
    assert [row["name"] for row in measured.attacks] == list(stage.attacks)
    assert {row["name"]: row["vantage"] for row in measured.baselines} == {
        "label_prior": "blind",
        "raw_features": "blind",
        "untrained_model": "blind",
    }
    assert all(row["status"] == "ok" for row in measured.attacks + measured.baselines)


def test_scores_are_kept_for_every_target_and_candidate(stage, measured):
    shape = (CLIENTS, len(stage.candidates.index))

    assert {k: v.shape for k, v in measured.scores.items()} == dict.fromkeys(stage.attacks, shape)


def test_rows_say_what_the_metrics_say_of_the_scores(stage, measured):
    for name, scores in measured.scores.items():
        row = rows(measured)[name]
        direct = Membership(bootstrap=100).evaluate(
            scores,
            stage.candidates.owner,
            stage.dataset.y[stage.candidates.index],
            np.random.default_rng(0),
        )
        assert row["auc"] == direct["auc"]
        assert row["auc_ci"] == direct["auc_ci"]
        assert [t["auc"] for t in row["per_target"]] == [t["auc"] for t in direct["per_target"]]
        assert [t["client"] for t in row["per_target"]] == [0, 1, 2, 3]


def test_members_that_are_there_are_found_and_blind_baselines_find_none(measured):
    assert rows(measured)["loss_series"]["auc_ci"][0] > 0.5
    for row in measured.baselines:
        low, high = row["auc_ci"]
        assert low <= 0.5 <= high, row["name"]


@pytest.mark.parametrize("vantage", ["server", "participant", "final_model"])
def test_the_last_point_of_the_curve_is_the_headline(stage, run, vantage):
    stage = replace(
        stage,
        attacks={
            "global": YeomLoss(),
            "local": YeomLoss("local"),
            "series": LossSeries("global"),
            **stage.attacks,
        },
    )
    stage, view = standing(stage, run, vantage)

    found = evaluate(stage, view, targets(stage, view, run.nodes), None)

    curves = [row for row in found.attacks if row.get("auc_per_round")]
    reads_global = 3 + ("loss_series_global" in stage.attacks)
    expected = {"server": len(stage.attacks), "participant": reads_global, "final_model": 0}
    assert len(curves) == expected[vantage]
    for row in curves:
        assert [point["round"] for point in row["auc_per_round"]] == [1, 2, 3, 4, 5]
        assert row["auc_per_round"][-1]["auc"] == row["auc"], row["name"]


def test_the_bound_after_the_last_round_is_the_headline_at_the_delta_asked_for(stage, run):
    view = look(stage, run.transcript)
    who = targets(stage, view, run.nodes)

    plain, loose = (evaluate(stage, view, who, None, delta=delta) for delta in (0.0, 1e-2))

    for found, delta in ((plain, 0.0), (loose, 1e-2)):
        assert [entry["round"] for entry in found.bounds] == [1, 2, 3, 4, 5]
        last = proved.epsilon(stage, found.scores, who.owner, delta)
        assert (
            found.bounds[-1]["epsilon_lower_bound"],
            found.bounds[-1]["epsilon_ceiling"],
        ) == last
        assert all(0 <= e["epsilon_lower_bound"] <= e["epsilon_ceiling"] for e in found.bounds)
    assert loose.bounds[-1]["epsilon_ceiling"] < plain.bounds[-1]["epsilon_ceiling"]


def test_an_attack_that_breaks_on_an_earlier_round_is_failed_and_proves_nothing(stage, run):
    stage = replace(stage, attacks={"brittle": Brittle(), "series": LossSeries()})
    view = look(stage, run.transcript)

    found = evaluate(stage, view, targets(stage, view, run.nodes), None)

    row = rows(found)["brittle"]
    assert (row["status"], row["reason"]) == ("failed", "RuntimeError: too early")
    assert list(found.scores) == ["series"]
    assert rows(found)["series"]["status"] == "ok"
    assert None not in {entry["epsilon_lower_bound"] for entry in found.bounds}


def test_the_curve_starts_where_every_target_has_taken_part(stage, run, tmp_path):
    who = {1: (0, 1), 2: (0, 1, 2), 3: (0, 1, 2, 3), 4: (1, 2, 3), 5: (0,)}
    transcript = partial(run, tmp_path, who)
    stage = replace(stage, attacks={"local": YeomLoss("local"), **stage.attacks})
    view = look(stage, transcript)

    found = evaluate(stage, view, targets(stage, view, run.nodes), None)

    for row in found.attacks:
        assert row["status"] == "ok", row
    for name in ("local", "loss_series", "avg_cosine"):
        curve = [point["auc"] for point in rows(found)[name]["auc_per_round"]]
        assert curve[:2] == [None, None]
        assert None not in curve[2:]
        assert curve[-1] == rows(found)[name]["auc"]


def test_a_target_without_members_counts_neither_in_the_headline_nor_in_the_curve(stage, run):
    view = look(stage, run.transcript)
    everyone = targets(stage, view, run.nodes)
    owner = np.where(everyone.owner == 1, -2, everyone.owner)

    found = evaluate(stage, view, replace(everyone, owner=owner), None)

    for row in found.attacks:
        assert row["per_target"][1]["auc"] is None
        assert row["auc_per_round"][-1]["auc"] == row["auc"], row["name"]


def test_histograms_count_each_population_once(stage, run, measured):
    members = 20 * CLIENTS
    nonmembers = int((stage.candidates.owner == -1).sum())
    for row in measured.attacks + measured.baselines:
        histogram = row["histogram"]
        assert len(histogram["edges"]) == len(histogram["members"]) + 1
        assert sum(histogram["members"]) == members
        assert sum(histogram["nonmembers"]) == nonmembers * CLIENTS
        assert sum(histogram["other_members"]) == members * (CLIENTS - 1)


def test_a_histogram_of_the_federation_as_a_whole_has_no_other_members(stage, run):
    stage, view = standing(stage, run, "participant", participant=2)

    found = evaluate(stage, view, targets(stage, view, run.nodes), None)

    histogram = rows(found)["yeom_loss"]["histogram"]
    assert sum(histogram["members"]) == 20 * (CLIENTS - 1)
    assert sum(histogram["nonmembers"]) == int((stage.candidates.owner == -1).sum())
    assert histogram["other_members"] is None


def test_measuring_again_gives_the_same_numbers(stage, run, measured):
    view = look(stage, run.transcript)

    again = evaluate(stage, view, targets(stage, view, run.nodes), None)

    for row, before in zip(again.attacks, measured.attacks, strict=True):
        assert {k: v for k, v in row.items() if k != "seconds"} == {
            k: v for k, v in before.items() if k != "seconds"
        }


# what cannot be measured


@dataclass(frozen=True)
class Failing(Attack):
    how: str

    needs = frozenset({Capability.GLOBAL_MODEL})
    reference = "nobody"

    def score(self, view, target, candidates, knowledge):
        if self.how == "raises":
            raise RuntimeError("no such thing")
        if self.how == "gives up":
            raise NotApplicableError("needs luck")
        return np.full(len(candidates), np.nan)


@dataclass(frozen=True)
class Brittle(Attack):
    needs = frozenset({Capability.GLOBAL_MODEL})
    reference = "nobody"

    def score(self, view, target, candidates, knowledge):
        if len(view.signals.rounds) < ROUNDS:
            raise RuntimeError("too early")
        return np.zeros(len(candidates))


def test_an_attack_that_fails_is_a_row_with_a_reason_and_the_others_go_on(stage, run):
    broken = {how: Failing(how) for how in ("raises", "gives up", "is nan")}
    stage = replace(stage, attacks={**broken, "series": LossSeries()})
    view = look(stage, run.transcript)

    found = evaluate(stage, view, targets(stage, view, run.nodes), None)

    by_name = rows(found)
    assert by_name["raises"]["status"] == "failed"
    assert by_name["raises"]["reason"] == "RuntimeError: no such thing"
    assert by_name["gives up"]["status"] == "not_applicable"
    assert by_name["gives up"]["reason"] == "needs luck"
    assert by_name["is nan"]["status"] == "failed"
    assert "score of candidate 0 is nan" in by_name["is nan"]["reason"]
    assert by_name["series"]["status"] == "ok"
    assert list(found.scores) == ["series"]


def test_a_vantage_that_lacks_what_an_attack_needs_is_a_row_that_says_so(stage, run):
    stage, view = standing(stage, run, "final_model")

    found = evaluate(stage, view, targets(stage, view, run.nodes), None)

    status = {row["name"]: row["status"] for row in found.attacks}
    assert status.pop("yeom_loss") == "ok"
    assert set(status.values()) == {"not_applicable"}
    assert rows(found)["yeom_loss"]["auc_per_round"] is None


def test_attacks_on_a_training_that_failed_are_failed_with_its_reason(stage, run):
    view = look(stage, run.transcript)

    found = evaluate(stage, view, targets(stage, view, run.nodes), "client 2 diverged")

    assert {(row["status"], row["reason"]) for row in found.attacks} == {
        ("failed", "client 2 diverged")
    }
    assert found.scores == {}
    assert all(row["status"] == "ok" for row in found.baselines)
    assert view.signals.seconds == 0


def test_a_training_that_failed_before_anybody_answered_still_has_its_baselines(
    stage, run, tmp_path
):
    TranscriptWriter(tmp_path, "server", frozenset(Capability) - KNOWLEDGE)
    view = look(stage, Transcript(tmp_path))

    found = evaluate(stage, view, targets(stage, view, run.nodes), "round 1 failed")

    assert {row["status"] for row in found.attacks} == {"failed"}
    assert len(found.baselines) == 3


def test_what_no_vantage_allows_stays_not_applicable_when_training_failed(stage, run):
    stage, view = standing(stage, run, "final_model")

    found = evaluate(stage, view, targets(stage, view, run.nodes), "diverged")

    assert rows(found)["yeom_loss"]["status"] == "failed"
    assert rows(found)["avg_cosine"]["status"] == "not_applicable"


def test_what_the_adversary_is_told_is_not_what_it_is_judged_on(stage, run):
    view = look(stage, run.transcript)
    everyone = targets(stage, view, run.nodes)
    config = stage.config.copy()
    config.knowledge.known_members = 0.25

    told = targets(replace(stage, config=config), view, run.nodes)

    assert all(len(m) == len(o) == 0 for m, o in everyone.known)
    for row, (members, others) in enumerate(told.known):
        assert len(members) == len(others) == 6  # of 10 of either label, 2.5 rounded up
        assert (everyone.owner[members] == row).all()
        assert (everyone.owner[others] == -1).all()
        assert (told.owner[members] == -2).all()
        assert (told.owner[others] == -2).all()
    known = np.unique(np.concatenate([np.concatenate(pair) for pair in told.known]))
    rest = np.setdiff1d(np.arange(len(told.owner)), known)
    assert len(known) == 4 * 6 + 6
    assert (told.owner[rest] == everyone.owner[rest]).all()


@pytest.mark.parametrize(("share", "each"), [(0.01, 1), (0.5, 5), (0.51, 6), (0.99, 9)])
def test_what_the_adversary_is_told_leaves_labels_as_they_were(stage, run, share, each):
    config = stage.config.copy()
    config.knowledge.known_members = share
    labels = stage.dataset.y[stage.candidates.index]

    told = targets(replace(stage, config=config), look(stage, run.transcript), run.nodes)

    for row, (members, others) in enumerate(told.known):
        assert np.bincount(labels[members]).tolist() == [each] * 2
        assert np.bincount(labels[others]).tolist() == [each] * 2
        assert np.bincount(labels[told.owner == row]).tolist() == [10 - each] * 2


def test_an_adversary_is_never_told_all_members(stage, run):
    config = stage.config.copy()
    config.knowledge.known_members = 0.99

    told = targets(replace(stage, config=config), look(stage, run.transcript), run.nodes)

    assert np.bincount(told.owner[told.owner >= 0]).tolist() == [2] * CLIENTS
