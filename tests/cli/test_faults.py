"""Runs that go wrong halfway, runs with parts missing, and runs that must not differ."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from cli_calls import SMALL

from fedmia import results
from fedmia.transcript import Transcript

PATIENCE_S = 120


def result_of(ended):
    return results.read(ended.folder / "result.json")


def outcomes(result):
    """Everything about the attacks but how long they took."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in result["attacks"]]
    return rows, result["candidates"], result["privacy"], result["utility"]


def arrays(run_dir):
    """Every array of a transcript, by round and name."""
    transcript = Transcript(run_dir / "transcript")
    found = {("final", k): v for k, v in transcript.final.items()}
    for seen in transcript:
        found |= {(seen.round, k): v for k, v in seen.params.items()}
        for update in seen.updates:
            found |= {(seen.round, update.node_id, k): v for k, v in update.delta.items()}
    return found


def assert_same(run_dir, other_dir):
    mine, theirs = arrays(run_dir), arrays(other_dir)
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        np.testing.assert_array_equal(value, theirs[key], err_msg=str(key))
    both = (results.read(d / "result.json") for d in (run_dir, other_dir))
    first, second = map(outcomes, both)
    assert first == second


class TestWhatGoesWrongInTraining:
    def test_a_diverging_client_is_named_and_the_run_still_written(self, run):
        ended = run("train.lr=1e6")
        assert ended.code == 1
        result = result_of(ended)
        assert result["status"] == "failed"
        assert result["reason"].startswith("training diverged: client ")
        assert "round 1" in result["reason"]
        assert {row["status"] for row in result["attacks"]} == {"failed"}
        assert {row["reason"] for row in result["attacks"]} == {result["reason"]}
        assert (ended.folder / "report.html").stat().st_size > 1000
        assert result["reason"] in " ".join(ended.out.split())
        assert "Traceback" not in ended.out + ended.err

    def test_a_failed_job_of_a_sweep_does_not_keep_the_others_from_running(self, run):
        ended = run("-m", "train.lr=1e6,0.05", "attack=yeom_loss")
        assert ended.code == 1
        found = [result["status"] for _, result in results.find([ended.folder])]
        assert found == ["failed", "ok"]

    def test_clients_that_drop_out_are_counted_as_faults_by_number(self, run):
        ended = run("client.dropout=0.3", "num_rounds=4")
        assert ended.code == 0, ended.err
        faults = result_of(ended)["faults"]
        assert faults
        assert {f["client"] for f in faults} <= set(range(4))
        assert {f["round"] for f in faults} <= {1, 2, 3, 4}
        assert all("client.dropout" in f["reason"] for f in faults)
        seen = Transcript(ended.folder / "transcript")
        assert sum(len(o.updates) for o in seen) + len(faults) == 16

    def test_a_run_in_which_nobody_ever_answers_fails(self, run):
        ended = run("client.dropout=0.999")
        assert ended.code == 1
        assert result_of(ended)["reason"] == "no client answered in any of 2 rounds"


class TestParts:
    def test_a_fraction_of_the_clients_a_round_is_enough(self, run):
        ended = run("strategy.fraction_train=0.75", "num_rounds=4")
        assert ended.code == 0, ended.err
        assert [len(o.updates) for o in Transcript(ended.folder / "transcript")] == [3] * 4
        rows = result_of(ended)["attacks"]
        assert {row["status"] for row in rows} == {"ok"}
        assert all(0 <= row["auc"] <= 1 for row in rows)

    def test_the_transcript_can_be_left_out(self, run, finished):
        ended = run("observer.keep_transcript=false")
        assert ended.code == 0, ended.err
        assert not (ended.folder / "transcript").exists()
        assert outcomes(result_of(ended)) == outcomes(result_of(finished))


def covers_half(row):
    low, high = row["auc_ci"]
    return low <= 0.5 <= high


def test_a_null_run_finds_nothing_where_the_same_run_finds_members(run):
    small = ("num_rounds=4", "candidates.nonmembers=300")
    null, real = (result_of(run(*small, f"metrics.null_run={n}")) for n in ("true", "false"))
    assert all(covers_half(row) for row in (*null["attacks"], *null["baselines"]))
    assert all(covers_half(row) for row in real["baselines"])
    series = next(row for row in real["attacks"] if row["name"] == "loss_series")
    assert series["auc_ci"][0] > 0.55


class TestTheSameSeed:
    def test_gives_the_same_run_twice(self, run, finished):
        assert_same(run().folder, finished.folder)

    def test_unlike_another(self, run, finished):
        assert outcomes(result_of(run("seed=1")))[0] != outcomes(result_of(finished))[0]

    @pytest.mark.slow
    @pytest.mark.usefixtures("ray_session")
    def test_gives_the_same_run_on_ray(self, run, finished):
        ended = run("pool=ray")
        assert ended.code == 0, ended.err
        assert_same(ended.folder, finished.folder)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_more_processors_than_there_are_cannot_be_reserved(run, tmp_path):
    ended = run("pool=ray", "pool.num_cpus=4096", f"output_dir={tmp_path}")
    assert ended.code == 2
    said = "pool.num_cpus=4096, pool.num_gpus=0.0: expected room for 1 actor(s)"
    assert ended.err.startswith(f"error: {said}")
    assert ended.err.count("\n") == 1
    assert ended.out == ""
    assert not list(tmp_path.rglob("transcript"))


def started(folder, *overrides):
    """Start ``fedmia run`` in a process group of its own, as a terminal does."""
    command = [sys.executable, "-m", "fedmia", "run", *SMALL, f"output_dir={folder}", *overrides]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=folder,
    )


def wait_for_round(process, folder, number):
    deadline = time.monotonic() + PATIENCE_S
    while not list(folder.rglob(f"round_{number:05d}.safetensors")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no round was recorded"
        time.sleep(0.01)


@pytest.mark.slow
class TestSignals:
    def test_ctrl_c_ends_the_run_and_all_of_ray_and_keeps_complete_rounds(self, fedmia, tmp_path):
        process = started(tmp_path, "pool=ray", "num_rounds=100000")
        try:
            wait_for_round(process, tmp_path, 2)
            children = psutil.Process(process.pid).children(recursive=True)
            names = {child.name() for child in children}
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
        assert process.returncode == 130
        assert "interrupted; complete rounds are kept" in err
        assert "Traceback" not in out + err
        assert {"raylet", "gcs_server"} <= names
        _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
        assert not alive
        again = fedmia("attack", out.splitlines()[-1], "attack=loss_series")
        assert again.code == 0, again.err
        assert result_of(again)["attacks"][0]["status"] == "ok"

    def test_a_run_whose_actor_is_killed_ends_as_if_nothing_had_happened(self, run, tmp_path):
        longer = ["num_rounds=12", "train.local_epochs=10", "attack=yeom_loss"]
        process = started(tmp_path, "pool=ray", *longer)
        try:
            wait_for_round(process, tmp_path, 2)
            children = psutil.Process(process.pid).children(recursive=True)
            actors = [child for child in children if "ray::_Worker" in child.name()]
            actors[0].kill()
            out, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
        assert process.returncode == 0, err
        run_dir = Path(out.splitlines()[-1])
        assert "A client process died" in (run_dir / "run.log").read_text()
        assert results.read(run_dir / "result.json")["faults"] == []
        assert_same(run_dir, run(*longer).folder)
