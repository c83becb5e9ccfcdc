"""Behind a release: outputs as they are shown, and no model; one line where it makes no sense."""

import numpy as np
import pytest
import torch

from fedmia import config, experiment
from fedmia.config import compose
from fedmia.errors import ConfigError
from fedmia.preparation import prepare
from fedmia.released import view_of
from fedmia.releases.base import check_release
from fedmia.releases.memguard import MemGuard
from fedmia.results import SCORES_NAME
from fedmia.signals import Signals
from fedmia.signals.forward import loss_and_gap
from fedmia.transcript import Transcript

SMALL = [
    *("num_rounds=6", "num_clients=4", "candidates.nonmembers=30", "metrics.bootstrap=100"),
    *("train.local_epochs=10", "pool=serial"),
]
RELEASED = [
    *("observer.vantage=final_model", "release=memguard", "release.budget=2"),
    *("release.hidden=[16]", "release.epochs=100"),
]
ATTACKS = "attack=[yeom_loss,entropy,grad_norm,loss_series]"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("released") / "run"
    settings = compose([*SMALL, *RELEASED, ATTACKS, f"output_dir={folder.parent}"])
    config.save(settings, folder / ".hydra", [])
    result = experiment.run(settings, folder)
    return folder, settings, {row["name"]: row for row in result["attacks"]}


def test_attacks_on_outputs_run_and_those_on_the_model_say_why_not(run):
    _, _, rows = run
    assert {rows[name]["status"] for name in ("yeom_loss", "entropy")} == {"ok"}
    for name, needs in (
        ("grad_norm", "the global model"),
        ("grad_norm_last_layer", "the global model"),
        ("loss_series_global", "several rounds, the global model"),
    ):
        assert rows[name]["status"] == "not_applicable"
        assert rows[name]["reason"] == (
            f"needs {needs}; vantage 'final_model' behind a release shows "
            "outputs of the global model only"
        )


def test_the_adversary_is_handed_guarded_outputs_and_no_model(run):
    folder, settings, _ = run
    stage, whole = prepare(settings), Transcript(folder / "transcript")
    view = view_of(stage, whole)
    assert (len(view.transcript), view.transcript.final) == (0, None)
    true = Signals(whole, stage.model, view.signals.candidates, None)
    logits, y = view.signals.logits(-1), view.signals.candidates.y
    assert (logits != true.logits(-1)).any()
    np.testing.assert_array_equal(logits.argmax(1), true.logits(-1).argmax(1))
    loss, gap = loss_and_gap(torch.tensor(np.array(logits)), torch.tensor(y))
    np.testing.assert_allclose(view.signals.loss_global[-1], loss.numpy(), rtol=1e-5)
    np.testing.assert_allclose(view.signals.logit_gap_global[-1], gap.numpy(), atol=1e-5)


def test_nothing_but_outputs_can_be_asked_for_of_other_records_either(run):
    folder, settings, _ = run
    stage = prepare(settings)
    signals = view_of(stage, Transcript(folder / "transcript")).signals
    for seen in (signals, signals.of(stage.auxiliary[:20])):
        assert np.isfinite(seen.entropy_global).all()
        with pytest.raises(PermissionError, match=r"^signal grad_norm: the model is not released"):
            _ = seen.grad_norm
        with pytest.raises(PermissionError, match=r"^the model is not released"):
            seen.model(-1)


def test_a_finished_run_can_be_asked_again_with_another_release(run):
    folder, settings, rows = run
    where, result = experiment.attack(folder, ["release.budget=0"])
    again = {row["name"]: row for row in result["attacks"]}
    assert again["yeom_loss"]["auc"] != rows["yeom_loss"]["auc"]
    stage = prepare(settings)
    examples = stage.dataset.examples(stage.candidates.index)
    true = Signals(Transcript(folder / "transcript"), stage.model, examples, None)
    scores = np.load(where / SCORES_NAME)["score/yeom_loss"]
    np.testing.assert_allclose(scores[0], -true.loss_global[-1], rtol=1e-5)


@pytest.mark.parametrize("vantage", ["server", "aggregate", "participant"])
def test_who_sees_the_model_itself_is_refused_a_release(vantage):
    said = f"release=MemGuard: expected observer.vantage=final_model: vantage '{vantage}' sees"
    with pytest.raises(ConfigError, match=f"^{said}"):
        prepare(compose([*SMALL, "release=memguard", f"observer.vantage={vantage}"]))


def test_a_release_needs_records_that_nobody_is_asked_about():
    check_release(MemGuard(), "final_model", 20)
    check_release(None, "server", 0)
    said = "release=MemGuard: expected 20 held-out records that no attack is asked about, there are"
    with pytest.raises(ConfigError, match=f"^{said} 19 "):
        check_release(MemGuard(), "final_model", 19)
