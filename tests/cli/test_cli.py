import shutil
import subprocess
import sys
from functools import cache

import pytest
import yaml

from fedmia import __version__, config, results
from fedmia.transcript import Transcript


@pytest.fixture
def run_dir(finished, tmp_path):
    """A copy of the finished run, to be spoiled."""
    return shutil.copytree(finished.folder, tmp_path / "run")


def one_line(ended):
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    return ended.err.removeprefix("error: ").rstrip("\n")


def aucs(result):
    return {row["name"]: row.get("auc") for row in result["attacks"]}


def test_a_run_prints_its_folder_last_and_leaves_it_complete(finished):
    result = results.read(finished.folder / "result.json")
    assert (result["status"], result["seed"]) == ("ok", 0)
    assert result["config"]["num_clients"] == 4
    saved = yaml.safe_load((finished.folder / ".hydra" / "config.yaml").read_text())
    assert saved["num_rounds"] == 2
    overrides = yaml.safe_load((finished.folder / ".hydra" / "overrides.yaml").read_text())
    assert "num_rounds=2" in overrides
    assert "<html" in (finished.folder / "report.html").read_text()
    assert (finished.folder / "run.log").read_text()
    transcript = Transcript(finished.folder / "transcript")
    assert transcript.rounds == (1, 2)
    assert transcript.final is not None
    for row in (*result["attacks"], *result["baselines"]):
        assert f"{row['name']} " in finished.out
    assert "Traceback" not in finished.out + finished.err


def test_a_sweep_runs_every_combination_and_prints_its_own_folder_last(fedmia, run):
    sweep = run("-m", "seed=0,1", "attack=yeom_loss")
    assert sweep.code == 0, sweep.err
    found = results.find([sweep.folder])
    assert [folder.name for folder, _ in found] == ["0", "1"]
    assert [result["seed"] for _, result in found] == [0, 1]
    assert found[0][1]["candidates"]["sha256"] != found[1][1]["candidates"]["sha256"]
    page = (sweep.folder / "comparison.html").resolve()
    written = page.read_text()
    assert len(written) > 1000
    report = fedmia("report", sweep.folder)
    assert report.code == 0
    assert report.folder == page
    assert page.read_text() == written
    rows = [line for line in report.out.splitlines() if "yeom_loss " in line]
    assert len(rows) == 1, "runs that differ in their seed alone are pooled"
    tables = report.out[: report.out.index(str(page))]
    assert tables in sweep.out, "a sweep ends with what the report says of it"
    assert sweep.out.index(tables) > sweep.out.index(str(sweep.folder / "1"))


def test_a_sweep_that_cannot_be_compared_says_so_and_is_as_good_as_its_runs(run, monkeypatch):
    def broken(dirs, output=None):
        raise RuntimeError("no\nluck")

    monkeypatch.setattr("fedmia.cli.compare", broken)
    sweep = run("-m", "seed=0,1", "attack=yeom_loss", "num_rounds=1")
    assert sweep.code == 0
    said = "error: the runs are written, but could not be compared: RuntimeError: no luck"
    assert said in sweep.err.splitlines()
    assert len(results.find([sweep.folder])) == 2


def test_a_sweep_of_one_run_compares_nothing(run):
    sweep = run("-m", "seed=0", "attack=yeom_loss", "num_rounds=1")
    assert sweep.code == 0, sweep.err
    assert [folder.name for folder, _ in results.find([sweep.folder])] == ["0"]
    assert not list(sweep.folder.glob("*.html"))


def test_a_sweep_with_a_bad_job_runs_none(run, tmp_path):
    said = one_line(run("-m", "num_rounds=1,-1", f"output_dir={tmp_path}"))
    assert said == "num_rounds=-1: expected at least 1"
    assert not list(tmp_path.iterdir())


def test_cfg_prints_the_configuration_and_runs_nothing(run, tmp_path):
    ended = run("--cfg", "seed=3", f"output_dir={tmp_path}")
    assert ended.code == 0
    assert yaml.safe_load(ended.out)["seed"] == 3
    assert not list(tmp_path.iterdir())


def test_attacking_again_gives_the_same_scores_in_a_folder_of_its_own(fedmia, run_dir):
    before = {file: file.stat().st_mtime_ns for file in run_dir.glob("transcript/*.safetensors")}
    again = fedmia("attack", run_dir)
    assert again.code == 0, again.err
    assert again.folder.parent == run_dir.resolve()
    first, second = (results.read(d / "result.json") for d in (run_dir, again.folder))
    assert [row.get("roc") for row in first["attacks"]] == [
        row.get("roc") for row in second["attacks"]
    ]
    assert first["utility"] == second["utility"]
    assert first["communication"] == second["communication"]
    assert (again.folder / "report.html").stat().st_size > 1000
    after = {file: file.stat().st_mtime_ns for file in run_dir.glob("transcript/*.safetensors")}
    assert after == before


def test_overrides_of_an_attack_are_honoured(fedmia, run_dir):
    again = fedmia("attack", run_dir, "attack=fedmia", "attack.fedmia_i.measurement=logit_gap")
    result = results.read(again.folder / "result.json")
    assert sorted(aucs(result)) == ["fedmia_i", "fedmia_ii"]
    assert result["config"]["attack"]["fedmia_i"]["measurement"] == "logit_gap"
    own = aucs(results.read(run_dir / "result.json"))
    assert aucs(result)["fedmia_ii"] == own["fedmia_ii"]
    assert aucs(result)["fedmia_i"] != own["fedmia_i"]


@pytest.fixture(scope="module")
def recorded(run):
    """A run that was recorded at this vantage; not to be written to."""
    return cache(lambda vantage: run(f"observer.vantage={vantage}"))


@pytest.mark.parametrize("vantage", ["aggregate", "final_model", "participant"])
def test_a_run_can_be_attacked_from_where_less_is_seen(fedmia, recorded, run_dir, vantage):
    again = fedmia("attack", run_dir, f"observer.vantage={vantage}")
    assert again.code == 0, again.err
    rows = results.read(again.folder / "result.json")["attacks"]
    assert {row["vantage"] for row in rows} == {vantage}
    theirs = results.read(recorded(vantage).folder / "result.json")["attacks"]
    assert [(r["name"], r["status"], r.get("auc")) for r in rows] == [
        (r["name"], r["status"], r.get("auc")) for r in theirs
    ]


def test_a_run_cannot_be_attacked_from_where_more_is_seen(fedmia, recorded):
    ended = recorded("final_model")
    said = one_line(fedmia("attack", ended.folder, "observer.vantage=server"))
    assert said.startswith("observer.vantage=server: expected one that sees no more than 'final")


@pytest.mark.parametrize("override", ["num_rounds=3", "dataset=wine", "train.lr=0.1", "seed=1"])
def test_what_was_fixed_in_training_cannot_be_overridden_afterwards(fedmia, run_dir, override):
    said = one_line(fedmia("attack", run_dir, override))
    key = override.partition("=")[0]
    assert said.startswith(f"{key}: expected one of attack, knowledge, metrics, observer")
    assert not list(run_dir.glob("attack_*"))


def test_a_truncated_round_is_named_and_the_others_are_used(fedmia, run_dir):
    broken = run_dir / "transcript" / "round_00001.safetensors"
    broken.write_bytes(broken.read_bytes()[:1000])
    again = fedmia("attack", run_dir, "attack=avg_cosine")
    assert again.code == 0, again.err
    notes = results.read(again.folder / "result.json")["notes"]
    assert any("round_00001.safetensors" in note for note in notes)
    assert "1 of 2 rounds are complete" in notes
    assert "round_00001.safetensors" in again.out.replace("\n", "")
    assert "Traceback" not in again.out + again.err


def test_a_transcript_without_a_complete_round_is_refused(fedmia, run_dir):
    for file in run_dir.glob("transcript/*.safetensors"):
        file.write_bytes(b"")
    assert "at least one complete round" in one_line(fedmia("attack", run_dir))


def test_what_a_run_directory_lacks_is_named(fedmia, run_dir, tmp_path):
    (run_dir / "transcript" / "meta.json").write_text("{")
    assert "meta.json: corrupt" in one_line(fedmia("attack", run_dir))
    shutil.rmtree(run_dir / "transcript")
    assert "no transcript here" in one_line(fedmia("attack", run_dir))
    assert "expected the configuration of a run" in one_line(fedmia("attack", tmp_path / "none"))


def test_a_run_that_died_before_its_result_can_be_attacked(fedmia, run_dir):
    (run_dir / "result.json").unlink()
    (run_dir / "transcript" / "final.safetensors").unlink()
    again = fedmia("attack", run_dir, "attack=loss_series")
    assert again.code == 0, again.err
    result = results.read(again.folder / "result.json")
    assert result["utility"]["test_accuracy"] is None
    assert aucs(result)["loss_series"] > 0.5


def test_data_that_changed_since_training_is_noticed(fedmia, run, tmp_path):
    rows = [f"{i},{(i * 7) % 11},{i % 2}" for i in range(120)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["a,b,label", *rows]))
    ended = run("dataset=table", f"dataset.path={table}", "model=logistic")
    assert ended.code == 0, ended.err
    table.write_text("\n".join(["a,b,label", "500,3,1", *rows[1:]]))
    assert "it has changed since" in one_line(fedmia("attack", ended.folder))


def test_a_report_of_one_run_is_its_page(fedmia, run_dir):
    (run_dir / "report.html").unlink()
    ended = fedmia("report", run_dir)
    assert ended.code == 0
    assert ended.folder == (run_dir / "report.html").resolve()
    assert "loss_series" in ended.folder.read_text()
    elsewhere = fedmia("report", run_dir, "-o", run_dir / "page.html")
    assert elsewhere.folder == (run_dir / "page.html").resolve()


def test_a_report_of_nothing_says_so(fedmia, run_dir, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert one_line(fedmia("report", empty)).endswith("at least one result.json below, found none")
    assert "expected a directory" in one_line(fedmia("report", tmp_path / "missing"))
    unwritable = empty / "no" / "page.html"
    said = one_line(fedmia("report", run_dir, "-o", unwritable))
    assert said.startswith(f"--output={unwritable}: expected a writable file")
    (run_dir / "result.json").write_text('{"schema": 1}')
    assert "result.json: " in one_line(fedmia("report", run_dir))


def test_list_shows_every_option_of_all_groups_or_of_one(fedmia):
    listed = fedmia("list").out
    for group in config.groups():
        for option in config.options(group):
            assert f"{group}={option}" in listed
    attacks = fedmia("list", "attack").out
    assert "attack=fedmia " in attacks
    assert "dataset=" not in attacks
    said = one_line(fedmia("list", "nonsense"))
    assert said.startswith(
        "group=nonsense: expected one of attack, canaries, client, client/attackers, "
        "client/canaries, client/defenses, dataset, "
    )


@pytest.mark.parametrize("verb", [[], ["run"], ["attack"], ["report"], ["list"]])
def test_every_verb_explains_itself(fedmia, verb):
    ended = fedmia(*verb, "--help")
    assert ended.code == 0
    assert "Usage: fedmia" in ended.out
    assert len(ended.out) > 500


def test_the_version_is_printed(fedmia):
    assert fedmia("--version").out == f"fedmia {__version__}\n"


@pytest.mark.parametrize("arguments", [["walk"], ["run", "--fast"], ["attack"], ["report"]])
def test_an_unknown_verb_or_option_and_a_missing_argument_are_refused(fedmia, arguments):
    ended = fedmia(*arguments)
    assert ended.code == 2
    assert "Usage: fedmia" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.slow
def test_the_package_can_be_run_as_a_module():
    command = [sys.executable, "-m", "fedmia", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"fedmia {__version__}\n"
