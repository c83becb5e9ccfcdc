import pytest

from fedmia.report import wording
from fedmia.report.html import render
from fedmia.results import Result


def test_a_number_that_is_not_there_is_a_dash_and_a_zero_is_a_zero() -> None:
    assert wording.number(None) == wording.percent(None) == wording.interval(None) == "–"
    assert wording.seconds(None) == "–"
    assert wording.number(0.0) == "0.000"
    assert wording.percent(0.0) == "0.0%"
    assert wording.interval([0.5, 0.75], 2) == "[0.50, 0.75]"


@pytest.mark.parametrize(
    ("fpr", "label"),
    [("0.1", "TPR@10%FPR"), ("0.01", "TPR@1%FPR"), ("0.001", "TPR@0.1%FPR"), ("0.07", "TPR@7%FPR")],
)
def test_rates_are_named_in_percent(fpr: str, label: str) -> None:
    assert wording.tpr_label(fpr) == label


def test_the_headline_names_the_strongest_attack_and_its_interval(changed) -> None:
    result = changed({"attacks.2.auc": 0.911, "attacks.2.auc_ci": [0.9, 0.922]})
    text = wording.headline(result)
    assert text.startswith("Membership leaks. The strongest of 3 attacks, avg_cosine")
    assert "AUC 0.911 [0.900, 0.922]" in text


def test_an_interval_that_reaches_chance_is_not_called_a_leak(changed) -> None:
    quiet = {f"attacks.{i}.auc": 0.52 for i in range(3)}
    quiet |= {f"attacks.{i}.auc_ci": [0.5, 0.54] for i in range(3)}
    text = wording.headline(changed(quiet))
    assert text.startswith("No attack could be told from guessing.")
    assert "leaks" not in text


def test_one_of_many_attacks_off_chance_is_what_their_number_explains(changed) -> None:
    # z = logit(.55) / ((logit(.599) - logit(.501)) / 3.92) = 1.98, p = .048 > .05 / 40
    one = changed()["attacks"][0]
    crowd = [one | {"name": f"a{i}", "auc": 0.5, "auc_ci": [0.45, 0.55]} for i in range(39)]
    lucky = one | {"name": "lucky", "auc": 0.55, "auc_ci": [0.501, 0.599]}
    text = wording.headline(changed({"attacks": [*crowd, lucky]}))
    assert text.startswith("No attack could be told from guessing. The highest of 40 attacks")
    assert text.endswith("coin toss, no further than chance takes the best of 40 attacks.")
    assert wording.headline(changed({"attacks": [lucky]})).startswith("Membership leaks.")
    # z = 3.9, p = 1e-4 < .05 / 40
    sure = lucky | {"name": "sure", "auc": 0.54, "auc_ci": [0.52, 0.56]}
    assert wording.headline(changed({"attacks": [*crowd, sure]})).startswith(
        "Membership leaks. The strongest of 40 attacks, sure "
    )
    both = changed({"attacks": [*crowd, lucky, sure]})
    assert wording.headline(both).startswith(
        "Membership leaks. The strongest that chance does not explain of 41 attacks, sure "
    )
    assert [attack["name"] for attack in wording.beyond_chance(both)] == ["sure"]


def test_the_level_of_the_headline_is_that_of_the_intervals(changed) -> None:
    # z = 3.26 at 95%, p = .0011 < .05 / 3; read as a 50% interval it is z = 1.12, p = .26 < .5 / 1
    row = changed()["attacks"][0] | {"auc": 0.54, "auc_ci": [0.516, 0.564]}
    rows = [row, *[row | {"name": f"b{i}", "auc_ci": [0.4, 0.7]} for i in range(2)]]
    assert wording.beyond_chance(changed({"attacks": rows})) == [row]
    half = changed({"attacks": rows, "config.metrics": {"confidence": 0.5}})
    assert wording.beyond_chance(half) == []
    alone = changed({"attacks": [row], "config.metrics": {"confidence": 0.5}})
    assert wording.beyond_chance(alone) == [row]


def test_a_failed_run_says_so_first_and_a_run_without_numbers_invents_none(changed) -> None:
    unmeasured = changed()["attacks"][3:]
    failed = changed({"status": "failed", "reason": "disk full", "attacks": unmeasured})
    assert wording.headline(failed) == "The run failed: disk full. No attack was measured."
    assert wording.strongest(failed) is None


def test_clean_baselines_raise_no_warning(result: Result) -> None:
    assert wording.warnings(result) == []


@pytest.mark.parametrize("interval", [[0.501, 0.6], [0.4, 0.499]])
def test_a_baseline_off_chance_on_either_side_is_a_confounding(changed, interval) -> None:
    (warning,) = wording.warnings(changed({"baselines.1.auc_ci": interval}))
    assert "confounded" in warning
    assert "raw_features 0.507" in warning
    assert "label_prior" not in warning


def test_baselines_that_are_missing_or_failed_are_no_reassurance(changed) -> None:
    (missing,) = wording.warnings(changed({"baselines": []}))
    assert "none was run" in missing
    failed = {"name": "label_prior", "vantage": "blind", "status": "failed", "reason": "x"}
    (silent,) = wording.warnings(changed({"baselines.0": failed}))
    assert "(label_prior)" in silent


def test_in_a_null_run_an_attack_off_chance_is_a_warning_not_a_leak(changed) -> None:
    null = changed({"candidates.null_run": True})
    assert "null run" in wording.headline(null)
    assert "leaks" not in wording.headline(null)
    (warning,) = wording.warnings(null)
    assert "yeom_loss, loss_series, avg_cosine" in warning


def test_the_bound_on_epsilon_stands_beside_its_ceiling(changed, result: Result) -> None:
    text = wording.epsilon(result)
    assert text.startswith("ε ≥ 0.91 with 95% confidence")
    assert "4.17" in text
    absent = changed({"privacy.epsilon_lower_bound": None})
    assert wording.epsilon(absent) == "no lower bound on ε was measured"


def test_the_summary_tells_utility_populations_notes_and_faults(changed) -> None:
    lines = dict(wording.summary(changed()))
    assert lines["utility"] == "test accuracy 0.712, training accuracy 0.934"
    assert lines["candidates"] == ("200 members, 900 held out, 1800 of other clients, 64 auxiliary")
    assert lines["note"] == "20% of all labels were re-drawn uniformly"
    assert lines["fault"] == "round 7, client 3: NaN in the update"


def test_a_fault_without_a_client_names_none(changed) -> None:
    result = changed({"faults.0.client": None})
    assert wording.faults(result) == ["round 7: NaN in the update"]


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("client 3, round 7: ValueError: x", "round 7, client 3: ValueError: x"),
        ("client 4, round 7: x", "round 7, client 3: client 4, round 7: x"),
        ("the reply came late", "round 7, client 3: the reply came late"),
    ],
)
def test_a_fault_names_its_round_and_client_once(changed, reason, told) -> None:
    assert wording.faults(changed({"faults.0.reason": reason})) == [told]


def test_the_setup_line_uses_class_names_and_leaves_out_what_is_not_there() -> None:
    config = {
        "dataset": {"_target_": "a.b.Digits", "noise": 0.2},
        "model": "mlp",
        "client": None,
        "num_rounds": 30,
    }
    assert wording.setup(config) == ["Digits", "mlp", "30 rounds"]


def test_the_narrow_table_shows_one_percent_unless_it_was_not_asked_for(changed) -> None:
    assert wording.table_fpr(changed()["attacks"]) == "0.01"
    assert wording.low_fprs(changed()["attacks"]) == ["0.1", "0.01", "0.001"]
    other = changed({f"attacks.{i}.tpr_at_fpr": {"0.05": 0.2, "0.2": 0.3} for i in range(3)})
    assert wording.table_fpr(other["attacks"]) == "0.2"
    assert wording.table_fpr([]) == "0.01"


def test_several_runs_are_cautioned_by_number(changed) -> None:
    off = changed({"baselines.0.auc_ci": [0.6, 0.7]})
    failed = changed({"status": "failed", "reason": "x"})
    found = wording.comparison_warnings([changed(), off, failed, off])
    assert found[0].startswith("2 of 4 runs")
    assert found[1] == "1 of 4 runs failed."
    assert wording.comparison_warnings([changed()]) == []


def test_what_clients_sent_is_a_line_where_it_was_counted(changed) -> None:
    sent = {"bytes_per_client_round": 25.0, "up": 7500, "dense": 100}
    said = "25 B by a client in a round, 25.0% of the whole model; 7.5 kB in all"
    assert ("sent", said) in wording.summary(changed({"communication": sent}))
    assert "sent" not in dict(wording.summary(changed()))
    assert said in render(changed({"communication": sent}))
