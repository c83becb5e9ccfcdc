"""``flwr run .`` from the project's folder, through a real local SuperLink on loopback."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from fedmia import results

PROJECT = Path(__file__).parents[2]
FLWR = str(Path(sys.executable).with_name("flwr"))

pytestmark = pytest.mark.slow


def flwr(home, *arguments, timeout=300):
    environment = os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PATH": f"{Path(FLWR).parent}:{os.environ['PATH']}",
    }
    return subprocess.run(
        [FLWR, *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run(home, overrides):
    return flwr(
        home,
        "run",
        ".",
        "--stream",
        "--federation-config",
        "num-supernodes=4",
        "--run-config",
        f'overrides="{overrides}"',
    )


SMALL = "num_clients=4 num_rounds=2 candidates.nonmembers=100 metrics.bootstrap=100"
RUNS = {
    "plain": "attack=loss_series",
    "secagg": "strategy=secagg_plus attack=[aggregate_cosine,avg_cosine]",
    "mistaken": "nmu_rounds=3",
}


@dataclass(frozen=True)
class Ended:
    """How one ``flwr run`` ended: what Flower says of it, what it printed and wrote."""

    status: str
    out: str
    folder: Path


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """All runs, one after the other; what Flower leaves running for them is ended afterwards."""
    home, printed, folders = tmp_path_factory.mktemp("flwr"), {}, {}
    try:
        start(home)
        for name, overrides in RUNS.items():
            folders[name] = tmp_path_factory.mktemp(name)
            done = run(home, f"{SMALL} {overrides} output_dir={folders[name]}")
            printed[name] = done.stdout + done.stderr
        listed = json.loads(flwr(home, "ls", "--limit", "9", "--format", "json").stdout).get(
            "runs", []
        )
    finally:
        stop(home)
    assert len(listed) == len(RUNS), printed
    in_order = sorted(listed, key=lambda r: r["pending-at"])
    return {
        name: Ended(found["status"], printed[name], folders[name])
        for name, found in zip(RUNS, in_order, strict=True)
    }


def start(home):
    """Have a SuperLink started; a command waits 15 s for it, a busy machine takes longer."""
    for _ in range(5):
        if '"runs"' in flwr(home, "ls", "--format", "json").stdout:
            return
    raise TimeoutError((home / "local-superlink" / "superlink.log").read_text())


def stop(home):
    for process in psutil.process_iter():
        try:
            if process.environ().get("FLWR_HOME") == str(home):
                process.terminate()
        except psutil.Error:
            continue


def test_the_same_experiment_runs_as_a_flower_app(ended):
    plain = ended["plain"]
    assert plain.status == "finished:completed", plain.out
    ((run_dir, result),) = results.find([plain.folder])
    assert result["status"] == "ok"
    assert [a["name"] for a in result["attacks"]] == ["loss_series", "loss_series_global"]
    assert result["attacks"][0]["auc"] > 0.6
    assert str(run_dir) in plain.out
    for name in ("report.html", "run.log", ".hydra/config.yaml", "transcript/final.safetensors"):
        assert (run_dir / name).exists()


def test_secure_aggregation_runs_as_a_flower_app(ended):
    secagg = ended["secagg"]
    assert secagg.status == "finished:completed", secagg.out
    ((_, result),) = results.find([secagg.folder])
    on_the_sum, on_clients = result["attacks"]
    assert result["status"] == "ok"
    assert result["faults"] == []
    assert on_the_sum["status"] == "ok"
    assert on_clients["status"] == "not_applicable"
    assert "under secagg_plus shows only their sum" in on_clients["reason"]
    assert result["utility"]["test_accuracy"] > 0.3


def test_bad_overrides_fail_the_run_and_say_why(ended):
    mistaken = ended["mistaken"]
    assert "failed" in mistaken.status
    assert "nmu_rounds: unknown key; did you mean num_rounds?" in mistaken.out
