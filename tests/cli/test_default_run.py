"""The default experiment keeps what the README says of it: a leak, and controls at chance."""

import pytest

from fedmia import config, experiment

CHANCE = 0.5


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    settings = config.compose(["pool=serial", "metrics.bootstrap=100"])
    return experiment.run(settings, tmp_path_factory.mktemp("default") / "run")


def test_the_loss_series_is_well_above_chance_with_its_interval(result):
    (row,) = (a for a in result["attacks"] if a["name"] == "loss_series")
    assert row["auc_ci"][0] > 0.75


def test_every_attack_runs_at_the_default_vantage(result):
    assert {a["status"] for a in result["attacks"]} == {"ok"}


def test_every_blind_baseline_is_at_chance(result):
    assert len(result["baselines"]) == 3
    for row in result["baselines"]:
        low, high = row["auc_ci"]
        assert low <= CHANCE <= high, row["name"]
