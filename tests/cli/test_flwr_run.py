"""``flwr run .`` from the project's folder, through a real local SuperLink on loopback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fedmia import results

PROJECT = Path(__file__).parents[2]
FLWR = str(Path(sys.executable).with_name("flwr"))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def flwr_home(tmp_path_factory):
    """A Flower home of its own; whatever Flower leaves running for it is ended afterwards."""
    home = tmp_path_factory.mktemp("flwr")
    yield home
    for process in psutil.process_iter():
        try:
            if process.environ().get("FLWR_HOME") == str(home):
                process.terminate()
        except psutil.Error:
            continue


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


def status_of_newest(home):
    runs = json.loads(flwr(home, "ls", "--format", "json").stdout)["runs"]
    return max(runs, key=lambda r: r["pending-at"])["status"]


SMALL = "num_clients=4 num_rounds=2 candidates.nonmembers=100 metrics.bootstrap=100"


def test_the_same_experiment_runs_as_a_flower_app(flwr_home, tmp_path):
    done = run(flwr_home, f"{SMALL} attack=loss_series output_dir={tmp_path}")
    assert status_of_newest(flwr_home) == "finished:completed", done.stdout + done.stderr
    ((run_dir, result),) = results.find([tmp_path])
    assert result["status"] == "ok"
    assert [a["name"] for a in result["attacks"]] == ["loss_series", "loss_series_global"]
    assert result["attacks"][0]["auc"] > 0.6
    assert str(run_dir) in done.stdout
    for name in ("report.html", "run.log", ".hydra/config.yaml", "transcript/final.safetensors"):
        assert (run_dir / name).exists()


def test_secure_aggregation_runs_as_a_flower_app(flwr_home, tmp_path):
    chosen = "strategy=secagg_plus attack=[aggregate_cosine,avg_cosine]"
    done = run(flwr_home, f"{SMALL} {chosen} output_dir={tmp_path}")
    assert status_of_newest(flwr_home) == "finished:completed", done.stdout + done.stderr
    ((_, result),) = results.find([tmp_path])
    on_the_sum, on_clients = result["attacks"]
    assert result["status"] == "ok"
    assert result["faults"] == []
    assert on_the_sum["status"] == "ok"
    assert on_clients["status"] == "not_applicable"
    assert "under secagg_plus shows only their sum" in on_clients["reason"]
    assert result["utility"]["test_accuracy"] > 0.3


def test_bad_overrides_fail_the_run_and_say_why(flwr_home, tmp_path):
    done = run(flwr_home, f"{SMALL} nmu_rounds=3 output_dir={tmp_path}")
    assert "failed" in status_of_newest(flwr_home)
    assert "nmu_rounds: unknown key; did you mean num_rounds?" in done.stdout
