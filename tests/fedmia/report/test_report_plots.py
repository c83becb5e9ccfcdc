import xml.etree.ElementTree as ET

import numpy as np
import pytest

from fedmia.report import plots
from fedmia.report.compare import compare
from fedmia.results import Result


def texts(svg: str) -> list[str]:
    return [t for node in ET.fromstring(svg).iter() for t in [node.text or ""] if t.strip()]


def test_every_figure_is_small_well_formed_and_keeps_its_text(changed, result: Result) -> None:
    figures = {
        "roc": plots.roc(result),
        "rounds": plots.per_round(result),
        "forest": plots.forest(compare([result]), ["a", "b", "c", "d", "e"]),
        "histogram": plots.histogram(result["attacks"][0]),
    }
    for svg in figures.values():
        assert svg is not None
        assert svg.startswith("<svg role=")
        assert len(svg.encode()) < 60_000
        assert texts(svg)
        assert "<image" not in svg
    assert "loss_series (" in " ".join(texts(figures["roc"] or ""))
    assert "true-positive rate" in texts(figures["roc"] or "")
    assert {"AUC", "test accuracy", "round"} <= set(texts(figures["rounds"] or ""))
    assert {"members", "held out", "other members"} <= set(texts(figures["histogram"] or ""))


def test_figures_are_the_same_every_time(result: Result) -> None:
    assert plots.roc(result) == plots.roc(result)


def test_names_are_data_and_neither_markup_nor_formulas(changed) -> None:
    result = changed({"attacks.1.name": '<script>&$x_{$"'})
    for svg in (plots.roc(result), plots.per_round(result)):
        assert svg is not None
        assert "<script" not in svg
        assert any('<script>&$x_{$"' in text for text in texts(svg))
    svg = plots.histogram(result["attacks"][1])
    assert "<script" not in svg
    assert '<script>&$x_{$"' in texts(svg)


def test_without_anything_to_draw_there_is_no_figure(changed) -> None:
    unmeasured = changed()["attacks"][3:]
    empty = changed({"attacks": unmeasured, "utility.per_round": []})
    assert plots.roc(empty) is None
    assert plots.per_round(empty) is None
    assert plots.forest(compare([empty]), ["x", "y"]) is None


def test_accuracy_alone_or_auc_alone_is_one_panel(changed) -> None:
    no_auc = plots.per_round(changed({f"attacks.{i}.auc_per_round": None for i in range(3)}))
    no_accuracy = plots.per_round(changed({"utility.per_round": []}))
    assert "AUC" not in texts(no_auc or "")
    assert "test accuracy" in texts(no_auc or "")
    assert "AUC" in texts(no_accuracy or "")
    assert "test accuracy" not in texts(no_accuracy or "")


def test_rounds_without_a_number_and_a_lone_round_are_drawn(changed) -> None:
    gap = [{"round": 1, "test_accuracy": None}, {"round": 2, "test_accuracy": 0.5}]
    assert plots.per_round(changed({"utility.per_round": gap}))
    assert plots.per_round(changed({"utility.per_round": gap[1:]}))


def test_a_crowd_is_cut_to_the_highest_aucs_and_stays_small(changed) -> None:
    one = changed()["attacks"][0]
    crowd = [one | {"name": f"attack{i}", "auc": i / 30} for i in range(30)]
    result = changed({"attacks": crowd})
    assert [attack["name"] for attack in plots.curves(result)] == [
        f"attack{i}" for i in range(29, 21, -1)
    ]
    assert len((plots.roc(result) or "").encode()) < 60_000
    long = [{"round": r, "auc": 0.5} for r in range(5000)]
    result = changed({"attacks": crowd, **{f"attacks.{i}.auc_per_round": long for i in range(30)}})
    assert len((plots.per_round(result) or "").encode()) < 60_000


def test_the_visible_curve_is_worked_out_by_hand() -> None:
    fpr = [0.0, 0.005, 0.01, 0.1, 1.0]
    tpr = [0.2, 0.25, 0.3, 0.6, 1.0]
    x, y = plots.visible_roc(fpr, tpr, 0.01)
    # What can be had without a resolvable false positive stands on the left edge.
    assert x == pytest.approx([0.01, 0.1, 1.0])
    assert y == pytest.approx([0.3, 0.6, 1.0])


def test_a_rate_of_zero_is_below_the_axis_and_not_on_it() -> None:
    _, y = plots.visible_roc([0.0, 0.5, 1.0], [0.0, 0.0, 1.0], 0.01)
    assert y == [0.005, 0.005, 1.0]


def test_thinning_keeps_points_of_the_curve_and_both_ends() -> None:
    rng = np.random.default_rng(0)
    fpr = [*np.sort(rng.uniform(size=5000)).tolist(), 1.0]
    tpr = [*np.sort(rng.uniform(size=5000)).tolist(), 1.0]
    x, y = plots.visible_roc(fpr, tpr, 1e-4)
    assert len(x) <= plots.POINTS + 1
    assert (x[-1], y[-1]) == (1.0, 1.0)
    assert set(zip(x[1:], y[1:], strict=True)) <= set(zip(fpr, tpr, strict=True))
    assert x == sorted(x)
    assert y == sorted(y)


def test_a_population_without_scores_in_range_is_drawn_flat(changed) -> None:
    bins = {"edges": [0.0, 1.0], "members": [0], "nonmembers": [3], "other_members": None}
    result = changed({"attacks.0.histogram": bins})
    svg = plots.histogram(result["attacks"][0])
    assert "nan" not in svg.lower()
    assert "other members" not in texts(svg)


def test_a_name_too_long_for_a_figure_is_cut_where_it_is_drawn(changed) -> None:
    assert plots.shorten("abcdef", 6) == "abcdef"
    assert plots.shorten("abcdefg", 6) == "abcde…"
    drawn = texts(plots.roc(changed({"attacks.1.name": "x" * 500})) or "")
    assert any(text.startswith("x" * 29 + "… (") for text in drawn)
