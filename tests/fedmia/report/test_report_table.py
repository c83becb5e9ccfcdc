import io
import re

from rich.console import Console, RenderableType

from fedmia.report.compare import compare
from fedmia.report.html import render
from fedmia.report.table import (
    attack_table,
    baseline_table,
    comparison_table,
    difference_table,
    summary,
)
from fedmia.results import Result


def printed(renderable: RenderableType, width: int = 200, *, colour: bool = False) -> str:
    text = io.StringIO()
    console = Console(file=text, width=width, force_terminal=colour, color_system="standard")
    console.print(renderable)
    return text.getvalue()


def line(text: str, start: str) -> str:
    (found,) = (row for row in text.splitlines() if row.lstrip("│ ").startswith(start))
    return found


def test_an_attack_is_one_line_with_its_figures(changed) -> None:
    result = changed({"attacks.1.auc": 0.853, "attacks.1.auc_ci": [0.8234, 0.8831]})
    text = printed(attack_table(result))
    cells = line(text, "loss_series").split()
    assert cells == [
        "loss_series",
        "server",
        "0.853",
        "[0.823,",
        "0.883]",
        "12.3%",
        "0.701",
        "0.42",
    ]
    assert "AUC [CI]" in text
    assert "TPR@1%FPR" in text


def test_a_rate_that_cannot_be_resolved_is_a_dash(changed) -> None:
    result = changed({"attacks.1.tpr_at_fpr": {"0.01": None}})
    cells = line(printed(attack_table(result)), "loss_series").split()
    assert cells[5] == "–"


def test_attacks_without_numbers_give_their_reason_dim_or_red(result: Result) -> None:
    plain = printed(attack_table(result))
    assert "fedmia: needs client updates, secagg shows only their sum" in plain
    assert "broken: NaN in the update of client 3 in round 7" in plain
    coloured = printed(attack_table(result), colour=True)
    assert "\x1b[2mnot applicable: fedmia" in coloured
    assert "\x1b[31mfailed: broken" in coloured


def test_rows_that_are_worse_than_chance_are_named_below_the_table(changed) -> None:
    below = changed({"attacks.1.auc": 0.4, "attacks.1.auc_ci": [0.35, 0.45]})
    note = "worse than chance: loss_series: is the direction right?"
    assert note in printed(attack_table(below))
    assert note in render(below)
    assert "worse than chance" not in printed(attack_table(changed())) + render(changed())


def test_attacks_are_ranked_and_those_without_numbers_are_told_once_a_reason(changed) -> None:
    again = changed()["attacks"][3] | {"name": "other"}
    result = changed({"attacks": [*changed()["attacks"], again], "attacks.0.auc": 0.99})
    text = printed(attack_table(result), width=100)
    order = [text.index(name) for name in ("yeom_loss", "loss_series", "avg_cosine", "broken")]
    assert order == sorted(order)
    assert "not applicable: fedmia, other: needs client updates" in text
    assert text.count("needs client updates") == 1


def test_guards_are_one_line_of_the_summary(changed) -> None:
    guards = [
        {"name": "seeds", "status": "warn", "detail": "one seed"},
        {"name": "disjoint", "status": "pass", "detail": "x"},
        {"name": "utility", "status": "pass", "detail": "x"},
        {"name": "null run", "status": "info", "detail": "x"},
        {"name": "accountant", "status": "fail", "detail": "broken"},
    ]
    text = printed(summary(changed({"guards": guards})))
    assert "1 fail (accountant), 1 warn (seeds), 2 pass, 1 info" in text
    assert "warning    The guard “accountant” failed: broken." in text
    assert "guards" not in printed(summary(changed()))


def test_text_that_looks_like_markup_is_printed_as_it_is(changed) -> None:
    hostile = {"attacks.4.reason": "[red]x[/blue] [bold", "notes": ["[/]"]}
    result = changed(hostile | {"attacks.3.name": "[link]"})
    text = printed(attack_table(result)) + printed(summary(result))
    assert "[red]x[/blue] [bold" in text
    assert "[link]" in text
    assert "[/]" in text


def test_baselines_have_the_same_columns(result: Result) -> None:
    text = printed(baseline_table(result))
    assert "0.507 [0.481, 0.533]" in line(text, "label_prior")
    assert "untrained_model" in text
    assert "loss_series" not in text


def test_the_summary_prints_everything_a_reader_must_know(changed) -> None:
    result = changed(
        {"status": "failed", "reason": "NaN", "baselines.0.auc_ci": [0.6, 0.7], "notes": ["n1"]}
    )
    text = printed(summary(result))
    for words in ("test accuracy 0.712", "900 held out", "ε ≥ 0.91", "4.17", "n1", "client 3"):
        assert words in text
    assert "warning    The attack AUCs are confounded" in text
    assert "failed     NaN" in text


def test_several_runs_print_what_was_varied_and_how_seeds_were_pooled(changed) -> None:
    dp = {"_target_": "strategies.dp.DpCentral"}
    runs = [changed({"seed": s, "attacks.1.auc": 0.8 + s / 100}) for s in range(3)]
    runs += [changed({"config.strategy": dp, "baselines.0.auc_ci": [0.6, 0.7]})]
    text = printed(comparison_table(runs))
    rows = [row.split() for row in text.splitlines() if "loss_series" in row]
    # mean .81, s = .01, half-width 4.302653 * .01 / sqrt(3) = .0248
    assert rows[0] == [
        "FedAvg", "loss_series", "3", "0.810", "[0.785,", "0.835]",
        "12.3%", "0.701", "0.712", "0.507",
    ]  # fmt: skip
    assert rows[1][0] == "DpCentral"
    assert rows[1][-2:] == ["0.507", "!"]
    assert "vantage: server" in text
    assert "t-interval" in text
    assert "fedmia: needs client updates" in text
    assert "not measured: fedmia: needs client updates" in text
    assert printed(comparison_table(compare(runs))) == text


def test_two_vantages_are_a_column(changed) -> None:
    runs = [changed(), changed({f"attacks.{i}.vantage": "wire" for i in range(5)})]
    rows = [row.split() for row in printed(comparison_table(runs)).splitlines()]
    assert [row[1] for row in rows if row[:1] == ["loss_series"]] == ["server", "wire"]


def test_a_hundred_columns_hold_settings_and_all_numbers(changed) -> None:
    name = "loss_trajectory_offline"
    attacks = changed({"attacks.1.name": name})["attacks"][:3]
    runs = [
        changed({"seed": s, "config.strategy": {"_target_": f"a.{strategy}"}, "attacks": attacks})
        for strategy in ("FedAvg", "DpCentralAdaptive")
        for s in range(3)
    ]
    comparison = compare(runs)
    tables = [printed(comparison_table(comparison), 100)]
    tables.append(printed(difference_table(comparison) or "", 100))
    for styled in tables:
        text = re.sub("\x1b.*?m", "", styled)
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= 100
        rows = [row.split()[0] for row in text.splitlines() if name in row]
        assert "DpCentralAdaptive" in rows
    assert "0.712" in tables[0]
    assert "[+0.000, +0.000]" in tables[1]


def test_without_a_second_configuration_there_is_no_difference(changed) -> None:
    assert difference_table(compare([changed(), changed({"seed": 9})])) is None


def test_one_seed_on_both_sides_is_a_difference_without_an_interval(changed) -> None:
    other = {"config.strategy": {"_target_": "a.Dp"}, "attacks.1.auc": 0.5}
    comparison = compare([changed({"attacks.1.auc": 0.75}), changed(other)])
    text = printed(difference_table(comparison) or "")
    assert text.startswith("Difference to FedAvg")
    assert line(text, "Dp        loss_series").split()[2:] == ["1", "-0.250", "+0.000"]


def test_a_narrow_terminal_loses_no_number(changed) -> None:
    text = printed(comparison_table([changed(), changed({"seed": 9})]), width=90)
    assert "…" not in line(text, "loss_series")


def test_differences_to_several_configurations_name_theirs(changed) -> None:
    def run(strategy: str, mode: str | None) -> Result:
        attack = {"yeom_loss": {"mode": mode}}
        config = changed()["config"] | {"strategy": {"_target_": f"a.{strategy}"}}
        return changed({"config": config | {"attack": attack}, "attacks": changed()["attacks"][:2]})

    runs = [run("FedAvg", "last"), run("Dp", "last")]
    assert printed(difference_table(compare(runs)) or "").startswith("Difference to FedAvg")
    text = printed(difference_table(compare([*runs, run("FedAvg", "mean")])) or "")
    assert text.startswith("Difference to the configuration under “than”")
    cells = [row.split()[:4] for row in text.splitlines() if "yeom_loss" in row]
    assert cells == [
        ["FedAvg", "mean", "yeom_loss", "last"],
        ["Dp", "last", "yeom_loss", "FedAvg"],
    ]
    assert [r.split()[:4] for r in text.splitlines() if "loss_series" in r] == [
        ["Dp", "–", "loss_series", "FedAvg"]
    ]


def test_differences_at_two_vantages_name_theirs(changed) -> None:
    other = {"config.strategy": {"_target_": "a.Dp"}}
    wire = {f"attacks.{i}.vantage": "wire" for i in range(5)}
    runs = [changed(), changed(other), changed(wire), changed(wire | other)]
    text = printed(difference_table(compare(runs)) or "")
    rows = [row.split()[:3] for row in text.splitlines() if "loss_series" in row]
    assert rows == [["Dp", "loss_series", "server"], ["Dp", "loss_series", "wire"]]
