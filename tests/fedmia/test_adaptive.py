import shutil
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedmia import adaptive
from fedmia.config import compose, save
from fedmia.errors import ConfigError
from fedmia.evaluation import evaluate, targets
from fedmia.experiment import attack, run
from fedmia.knowledge import View
from fedmia.preparation import prepare
from fedmia.records import Capability
from fedmia.report.lines import relevant
from fedmia.report.table import attack_table
from fedmia.shadows.simulation import Simulation
from fedmia.signals import Signals
from fedmia.signals.lenses import Composed, Signs, Transmitted
from fedmia.transcript import Transcript
from fedmia.truth import Truth

SETTINGS = [
    "dataset=breast_cancer",
    "model=mlp",
    "model.hidden=[16]",
    "pool=serial",
    "partition.samples_per_client=12",
    "candidates.nonmembers=60",
    "metrics.bootstrap=100",
    "knowledge.shadow_models=8",
    "num_clients=3",
    "num_rounds=3",
    "train.local_epochs=2",
]
TOP_K = ["client/defenses=[top_k]", "client.defenses.top_k.whole_below=0"]
SEEN, UNSEEN = "attack=[avg_cosine,grad_diff,loss_series]", "attack=[loss_series]"
INFORMED = "attack.adaptive=true"


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stage_of(*overrides):
    return prepare(compose([*SETTINGS, *overrides]))


@pytest.fixture(scope="module")
def top_k(tmp_path_factory):
    folder = tmp_path_factory.mktemp("top_k") / "run"
    settings = compose([*SETTINGS, *TOP_K, SEEN, INFORMED])
    save(settings, folder / ".hydra", [])
    result = run(settings, folder)
    return SimpleNamespace(folder=folder, result=result)


def by_name(result):
    return {row["name"]: row for row in result["attacks"]}


# what there is to know


def test_lenses_come_in_the_order_in_which_defences_act_on_an_update():
    one = adaptive.informed(stage_of(*TOP_K))
    assert one.lens == Transmitted()
    both = adaptive.informed(stage_of("client/defenses=[sign_sgd,top_k]"))
    assert both.lens == Composed((Transmitted(), Signs()))
    twice = adaptive.informed(stage_of("client/defenses=[random_sparsification,top_k]"))
    assert twice.lens == Transmitted()


def test_defences_are_simulated_where_they_say_how():
    stage = stage_of("client/defenses=[clipping,top_k,mixup]")
    knows = adaptive.informed(stage)
    assert knows.simulation == Simulation(stage.mods[1:])
    assert knows.simulated == ("top_k", "mixup")
    assert knows.unsimulated == ("clipping",)
    assert knows.seen_through == ("top_k",)


def test_who_sees_no_updates_has_no_lens_and_who_cannot_train_simulates_nothing():
    hidden = adaptive.informed(
        stage_of(*TOP_K, "observer.vantage=aggregate", "attack=aggregate_cosine")
    )
    assert hidden.lens is None
    assert hidden.simulation
    blunt = adaptive.informed(stage_of(*TOP_K, "knowledge.recipe=false"))
    assert blunt.simulation is None
    assert blunt.unsimulated == ()
    assert blunt.lens == Transmitted()


@pytest.mark.parametrize("defenses", ["[]", "[clipping]"])
def test_there_may_be_nothing_to_know(defenses):
    assert adaptive.informed(stage_of(f"client/defenses={defenses}")) is None


def test_an_attack_is_asked_again_where_it_may_read_something_else():
    lens, simulation = adaptive.Informed(Transmitted(), None), Simulation((object(),))

    def needing(*needs):
        return SimpleNamespace(requirements=lambda: frozenset(needs))

    updates, shadows = needing(Capability.CLIENT_UPDATES), needing(Capability.SHADOWS)
    neither = needing(Capability.GLOBAL_MODEL)
    assert [lens.concerns(a) for a in (updates, shadows, neither)] == [True, True, False]
    simulating = adaptive.Informed(None, simulation)
    assert [simulating.concerns(a) for a in (updates, shadows, neither)] == [False, True, False]


# what becomes of it


def test_an_attack_that_reads_cosines_has_a_second_row_beside_the_first(top_k):
    names = [row["name"] for row in top_k.result["attacks"]]
    assert names == [
        "avg_cosine",
        "avg_cosine_adaptive",
        "grad_diff",
        "grad_diff_adaptive",
        "grad_diff_scaled",
        "grad_diff_scaled_adaptive",
        "loss_series",
        "loss_series_global",
    ]
    rows = by_name(top_k.result)
    assert {n for n, row in rows.items() if row.get("adaptive")} == {
        n for n in names if n.endswith("_adaptive")
    }
    assert rows["avg_cosine_adaptive"]["status"] == "ok"
    assert rows["avg_cosine_adaptive"]["vantage"] == "server"


def test_the_scores_are_those_of_what_was_transmitted(top_k):
    kept = np.load(top_k.folder / "scores.npz")
    stage = stage_of(*TOP_K, SEEN, INFORMED)
    transcript = Transcript(top_k.folder / "transcript")
    signals = Signals(transcript, stage.model, candidates(stage), None)
    number = Truth.load(top_k.folder).nodes
    columns = np.argsort([number[node] for node in signals.nodes])
    for lens, name in ((None, "avg_cosine"), (Transmitted(), "avg_cosine_adaptive")):
        seen = signals.through(lens) if lens else signals
        expected = seen.cosine[:, columns].mean(axis=0)
        np.testing.assert_allclose(kept[f"score/{name}"], expected, atol=1e-6)
    assert not np.allclose(kept["score/avg_cosine"], kept["score/avg_cosine_adaptive"])


def candidates(stage):
    return stage.dataset.examples(stage.candidates.index)


def test_rows_that_know_the_defence_are_followed_over_rounds_too(top_k):
    row = by_name(top_k.result)["avg_cosine_adaptive"]
    assert [point["round"] for point in row["auc_per_round"]] == [1, 2, 3]
    assert row["auc_per_round"][-1]["auc"] == pytest.approx(row["auc"])
    assert row["auc_per_round"] != by_name(top_k.result)["avg_cosine"]["auc_per_round"]


def test_bounds_are_of_the_scores_of_both(top_k, monkeypatch):
    proven = []

    def epsilon(stage, scores, **_):
        proven.append(set(scores))
        return 0.0, 1.0

    monkeypatch.setattr("fedmia.proved.epsilon", epsilon)
    measured_again(top_k, stage_of(*TOP_K, SEEN, INFORMED))
    assert len(proven) == 3
    assert proven == [set(by_name(top_k.result))] * 3


def measured_again(recorded, stage):
    transcript = Transcript(recorded.folder / "transcript")
    view = View(transcript, Signals(transcript, stage.model, candidates(stage), None))
    who = targets(stage, view, Truth.load(recorded.folder).nodes)
    return evaluate(stage, view, who, None)


def test_knowing_changes_no_row_of_those_who_do_not_know(top_k):
    alone = measured_again(top_k, stage_of(*TOP_K, SEEN))
    rows = by_name(top_k.result)
    for row in alone.attacks:
        assert {**row, "seconds": 0} == {**rows[row["name"]], "seconds": 0}
    assert alone.notes == []


def test_a_saved_run_is_attacked_by_who_knows_its_defences(top_k):
    _, result = attack(top_k.folder, ["attack=[avg_cosine,loss_series]", INFORMED])
    rows = by_name(result)
    assert list(rows) == ["avg_cosine", "avg_cosine_adaptive", "loss_series", "loss_series_global"]
    before = by_name(top_k.result)["avg_cosine_adaptive"]
    assert rows["avg_cosine_adaptive"]["auc"] == before["auc"]
    _, plain = attack(top_k.folder, ["attack.adaptive=false"])
    assert not any(row.get("adaptive") for row in plain["attacks"])


def test_a_run_saved_before_there_was_the_flag_can_be_asked_for_it(top_k, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(top_k.folder, folder)
    file = folder / ".hydra" / "config.yaml"
    text = file.read_text()
    file.write_text(text.replace("  adaptive: true\n", ""))
    assert file.read_text() != text
    _, result = attack(folder, [INFORMED])
    assert "avg_cosine_adaptive" in by_name(result)


def test_the_report_says_which_attackers_know_the_defence(top_k):
    table = attack_table(top_k.result)
    assert "…_adaptive: the attacker knows the defences" in str(table.caption)
    page = (top_k.folder / "report.html").read_text()
    assert "…_adaptive: the attacker knows the defences" in page
    guard = next(g for g in top_k.result["guards"] if g["name"] == "adaptive attacker")
    assert (guard["status"], guard["detail"]) == ("pass", "an attack adapts to top_k")


def test_a_comparison_gives_the_row_the_settings_of_its_attack():
    attacks = {"a": {"k": 1}, "b": {"k": 2}, "adaptive": True}
    assert relevant({"attack": attacks}, "a_adaptive") == {"attack": {"k": 1}}
    assert relevant({"attack": attacks}, "a") == {"attack": {"k": 1}}


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        ([SEEN], "attack.adaptive: knowing the defences would change nothing here"),
        (
            [*TOP_K, UNSEEN],
            "adaptive: no attack that was asked for reads anything else for knowing them",
        ),
    ],
)
def test_where_nothing_changes_there_is_a_note_and_no_row(overrides, note, tmp_path):
    result = run(compose([*SETTINGS, *overrides, INFORMED]), tmp_path / "run")
    assert not any(row.get("adaptive") for row in result["attacks"])
    assert note in result["notes"]


def test_of_a_release_it_is_said_that_shadow_models_have_none():
    stage = SimpleNamespace(release=object(), gives={Capability.SHADOWS})
    said = adaptive.notes(stage, None, 0)
    assert said[0] == "adaptive: shadow models show their outputs as they are, without a release"
    stage.release = None
    assert adaptive.notes(stage, None, 0) == said[1:]


def test_shadows_that_defend_themselves_make_other_scores(tmp_path):
    overrides = ["client/defenses=[clipping,label_smoothing]", "attack=[lira,loss_series]"]
    result = run(compose([*SETTINGS, *overrides, INFORMED]), tmp_path / "run")
    assert result["status"] == "ok", result["reason"]
    rows = by_name(result)
    assert rows["lira_offline_adaptive"]["adaptive"] is True
    assert rows["lira_offline_adaptive"]["histogram"] != rows["lira_offline"]["histogram"]
    assert "loss_series_adaptive" not in rows
    assert "adaptive: clipping is not simulated by shadow clients" in result["notes"]
    assert (tmp_path / "run" / "transcript" / "shadows_adaptive").is_dir()
    detail = next(g["detail"] for g in result["guards"] if g["name"] == "adaptive attacker")
    assert detail == "no attack here adapts to clipping"


def test_a_defence_that_only_shadows_could_repeat_is_not_adapted_to_by_a_cosine():
    stage = stage_of("client/defenses=[top_k,mixup]", "attack=[avg_cosine,lira]")
    cosine = {"name": "avg_cosine_adaptive", "adaptive": True}
    lira = {"name": "lira_offline_adaptive", "adaptive": True}
    assert adaptive.adapted(stage, [cosine]) == ("top_k",)
    assert adaptive.adapted(stage, [cosine, lira]) == ("top_k", "mixup")
    assert adaptive.adapted(stage, [{"name": "avg_cosine"}]) == ()


# what is asked for


@pytest.mark.parametrize(
    "attacks", [[], ["attack=all"], ["attack=[yeom_loss,fedmia]"], ["attack=fedmia"]]
)
def test_one_flag_goes_with_any_choice_of_attacks(attacks):
    plain, asked = compose([*SETTINGS, *attacks]), compose([*SETTINGS, *attacks, INFORMED])
    assert plain.attack.adaptive is False
    assert asked.attack.adaptive is True
    assert list(plain.attack) == list(asked.attack)
    assert "adaptive" not in prepare(asked).attacks if attacks != ["attack=all"] else True


@pytest.mark.parametrize("value", ["maybe", "2", "null", "[true]"])
def test_anything_but_true_or_false_is_refused(value):
    with pytest.raises(ConfigError, match=r"^attack\.adaptive=.*: expected .+$"):
        compose([*SETTINGS, f"attack.adaptive={value}"])


def test_an_attack_may_not_have_the_name_of_another_ones_second_row():
    twin = "+attack.avg_cosine_adaptive={_target_:fedmia.attacks.avg_cosine.AvgCosine}"
    with pytest.raises(ConfigError, match=r"attack\.avg_cosine_adaptive=…: expected another name"):
        compose([*SETTINGS, "attack=[avg_cosine]", twin])
