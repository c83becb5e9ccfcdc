"""What a run under secure aggregation says of itself, from the strategy to the page."""

import json

import pytest

from fedmia.config import compose, save
from fedmia.experiment import attack, run
from fedmia.masked import notes
from fedmia.report import wording
from fedmia.results import SecureAggregation

SETTINGS = [
    "strategy=secagg_plus",
    "dataset=wine",
    "model=logistic",
    "pool=serial",
    "partition.samples_per_client=12",
    "attack=yeom_loss",
    "train.local_epochs=1",
    "metrics.bootstrap=100",
    "num_clients=4",
]
WORDS = 13 * 3 + 3 + 1 + 2
"""Coordinates, the clients' loss, the weight and the count of clipped coordinates."""


def block(clipped=(), abandoned=()) -> SecureAggregation:
    return {
        "name": "secagg_plus",
        "neighbours": 4,
        "threshold": 2,
        "bits": 16,
        "modulus_bits": 32,
        "bytes_per_client": 1000,
        "clipped": [{"round": t, "share": share} for t, share in clipped],
        "abandoned": list(abandoned),
    }


def test_a_run_in_which_nothing_happened_needs_no_note():
    assert notes(block()) == []
    assert notes(block(clipped=[(1, 0.0), (2, 0.01)])) == []


def test_abandoned_rounds_are_one_line():
    assert notes(block(abandoned=[3])) == ["1 round was abandoned, the model stayed as it was: 3"]
    assert notes(block(abandoned=range(1, 8))) == [
        "7 rounds were abandoned, the model stayed as it was: 1, 2, 3, 4, 5, …"
    ]


def test_the_round_in_which_most_was_clipped_is_named():
    assert notes(block(clipped=[(1, 0.02), (2, 0.1234), (3, 0.0)])) == [
        "secagg_plus clipped 12.3% of all coordinates in round 2: the mean is off by more than "
        "rounding"
    ]


def settings_of(seed, *overrides):
    return compose([*SETTINGS, "num_rounds=3", "client.dropout=0.25", f"seed={seed}", *overrides])


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    """Return a run in which two of four clients are away in round 2, and three must stay."""
    folder = tmp_path_factory.mktemp("troubled")
    settings = settings_of(21, "strategy.protocol.clip=1e-4")
    save(settings, folder / ".hydra", [])
    return folder, run(settings, folder)


def test_the_result_says_how_updates_were_hidden(troubled):
    _, result = troubled
    hidden = result["secagg"]

    assert {key: hidden[key] for key in ("name", "bits", "modulus_bits", "abandoned")} == {
        "name": "secagg_plus",
        "bits": 16,
        "modulus_bits": 32,
        "abandoned": [2],
    }
    assert (hidden["neighbours"], hidden["threshold"]) == (3, 2)
    assert hidden["bytes_per_client"] == 4 * WORDS
    assert [seen["round"] for seen in hidden["clipped"]] == [1, 3]
    assert all(seen["share"] > 0.3 for seen in hidden["clipped"])


def test_an_abandoned_round_is_a_fault_a_note_and_a_line_of_the_log(troubled):
    folder, result = troubled
    reason = "abandoned: 2 clients sent a masked update: expected at least 3"

    (fault,) = (f for f in result["faults"] if f["client"] is None)
    assert (fault["round"], fault["reason"]) == (2, reason)
    assert [f["round"] for f in result["faults"]] == [2, 2, 2]
    note = "1 round was abandoned, the model stayed as it was: 2"
    assert note in result["notes"]
    assert any(n.startswith("secagg_plus clipped ") for n in result["notes"])
    page = (folder / "report.html").read_text()
    log = (folder / "run.log").read_text()
    summary = [line for _, line in wording.summary(result)]
    assert note in page
    assert f"round 2: {reason}" in page
    assert f"round 2: {reason}" in summary
    assert f"Round 2 is {reason}" in log
    accuracies = [seen["test_accuracy"] for seen in result["utility"]["per_round"]]
    assert accuracies[1] == accuracies[2]
    assert result["status"] == "ok"


def test_the_masked_words_are_judged_by_a_guard(troubled):
    _, result = troubled
    found = result["leak_check"]

    assert found["words"] == (4 + 2 + 4) * WORDS
    assert found["verdict"] == "uniform"
    (guard,) = (g for g in result["guards"] if g["name"] == "masked words")
    assert (guard["status"], guard["detail"].split(":")[0]) == (
        "pass",
        "450 masked words look uniform",
    )


def test_another_attack_on_the_transcript_says_the_same(troubled):
    folder, result = troubled

    _, again = attack(folder, ["attack=yeom_loss"])
    _, outside = attack(folder, ["observer.vantage=aggregate"])

    assert again["secagg"] == outside["secagg"] == result["secagg"]
    assert again["leak_check"] == result["leak_check"]
    assert "leak_check" not in outside
    assert all(g["name"] != "masked words" for g in outside["guards"])
    assert "1 round was abandoned, the model stayed as it was: 2" in again["notes"]


def test_a_run_of_abandoned_rounds_has_failed_for_the_first_reason(tmp_path):
    result = run(settings_of(27), tmp_path)

    assert result["status"] == "failed"
    assert result["reason"] == (
        "every round was abandoned; first reason: round 1: 2 clients sent a masked update: "
        "expected at least 3"
    )
    assert result["secagg"]["abandoned"] == [1, 2, 3]
    assert len({seen["test_accuracy"] for seen in result["utility"]["per_round"]}) == 1
    assert json.loads((tmp_path / "result.json").read_text())["secagg"] == result["secagg"]


def test_without_secure_aggregation_nothing_of_this_is_said(tmp_path):
    result = run(compose([*SETTINGS[1:], "num_rounds=1"]), tmp_path)
    assert not {"secagg", "leak_check"} & result.keys()
    assert all(g["name"] != "masked words" for g in result["guards"])
