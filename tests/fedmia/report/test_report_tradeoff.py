import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from test_report_html import Page
from test_report_table import printed

from fedmia.report.compare import compare
from fedmia.report.html import render
from fedmia.report.pooling import Pooled
from fedmia.report.table import comparison_table
from fedmia.report.tradeoff import NOTHING, Claimed, Point, cells, claimed, series
from fedmia.report.tradeoff_figure import figure


def texts(svg):
    return [t for node in ET.fromstring(svg).iter() for t in [node.text or ""] if t.strip()]


def point(epsilon, *settings, attack="a", auc=0.6, vantage="aggregate", covers=True):
    pooled = Pooled(auc, auc - 0.02, auc + 0.02, "t")
    claim = NOTHING if epsilon is None else Claimed(epsilon, covers)
    return Point(settings, attack, vantage, claim, pooled, pooled, pooled, 0.5)


@pytest.fixture
def sweep(private, changed):
    """ε of 1 and 8 and no noise, three seeds each."""
    found = []
    for seed in range(3):
        shift = {"seed": seed, "utility.test_accuracy": 0.7 + seed / 100}
        found += [private(epsilon, shift) for epsilon in (8.0, 1.0)]
        found.append(private(None, shift | {"utility.test_accuracy": 0.9 + seed / 100}))
    return found


def test_epsilon_is_the_largest_over_seeds_and_none_where_one_seed_has_none(private, changed):
    assert claimed([private(1.0), private(1.5)]) == Claimed(1.5, True)
    assert claimed([private(1.0), private(None)]) == NOTHING
    assert claimed([changed()]) == NOTHING
    assert claimed([private(1.0, covered=False)]) == Claimed(1.0, False)
    assert claimed([private(1.0), private(1.0, covered=False)]) == Claimed(1.0, False)
    assert claimed([]) == NOTHING


def test_epsilon_is_printed_in_parentheses_where_it_does_not_cover_the_vantage():
    assert [c.shown for c in (Claimed(8.0, True), Claimed(8.0, False), NOTHING)] == [
        "8.00",
        "(8.00)",
        "none",
    ]


def test_a_series_leaves_out_the_settings_that_go_with_epsilon_and_keeps_the_others():
    points = [
        point(8.0, "Dp", "8", "0.1"),
        point(1.0, "Dp", "1", "0.1"),
        point(8.0, "Dp", "8", "1.0"),
        point(1.0, "Dp", "1", "1.0", auc=0.9),
        point(None, "FedAvg", "–", "–"),
    ]
    assert [(name, [p.claim.epsilon for p in group]) for name, group in series(points)] == [
        (("1.0", "a"), [1.0, 8.0]),
        (("0.1", "a"), [1.0, 8.0]),
        (("a",), [None]),
    ]


def test_attacks_and_vantages_are_series_of_their_own():
    points = [point(1.0), point(8.0), point(1.0, attack="b"), point(1.0, vantage="server")]
    assert {name for name, _ in series(points)} == {
        ("aggregate", "a"),
        ("aggregate", "b"),
        ("server", "a"),
    }


def test_seeds_are_pooled_with_intervals(sweep):
    comparison = compare(sweep)
    (found,) = (p for p in comparison.tradeoff if p.attack == "loss_series" and p.claim[0] == 8.0)
    # accuracies .70, .71, .72: mean .71, s = .01, half-width 4.302653 * .01 / sqrt(3) = .0248
    assert found.accuracy is not None
    assert (found.accuracy.mean, found.accuracy.kind) == (pytest.approx(0.71), "t")
    assert found.accuracy.low == pytest.approx(0.71 - 0.02484, abs=1e-5)
    assert found.tpr is not None
    assert found.tpr.mean == pytest.approx(0.123)
    assert found.proved == pytest.approx(0.913)
    assert found.auc == next(
        r.auc for r in comparison.rows if r.attack == "loss_series" and r.settings == found.settings
    )


def test_rates_over_kept_scores_have_a_bootstrap_interval(sweep, tmp_path):
    rng, folders = np.random.default_rng(0), []
    for number, _ in enumerate(sweep):
        owner = np.repeat([0, -1], [50, 200])
        scores = rng.normal(size=(1, 250)) + (owner == 0)
        folders.append(tmp_path / str(number))
        folders[-1].mkdir()
        np.savez(folders[-1] / "scores.npz", owner=owner, **{"score/loss_series": scores})
    kinds = {
        p.attack: (p.auc.kind, p.tpr.kind if p.tpr else None, p.accuracy.kind)
        for p in compare(sweep, folders).tradeoff
    }
    assert kinds["loss_series"] == ("bootstrap", "bootstrap", "t")
    assert kinds["yeom_loss"] == ("t", "t", "t")


def test_a_single_run_keeps_its_own_intervals(private):
    (found, *_) = compare([private(8.0), private(1.0)]).tradeoff
    assert found.tpr == Pooled(0.123, 0.081, 0.164, "run")
    row = cells([found])[0]
    assert row[0] == found.attack
    assert row[1:3] == ["8.00", "0.712"]
    assert row[4:] == ["12.3% [8.1%, 16.4%]", "0.91"]


def test_what_a_seed_lacks_is_a_dash(private):
    lacking = json.loads(json.dumps(private(1.0)))
    lacking["utility"]["test_accuracy"] = None
    lacking["attacks"][1]["tpr_at_fpr"]["0.01"] = None
    lacking["privacy"]["epsilon_lower_bound"] = None
    points = compare([lacking, private(8.0)]).tradeoff
    (row,) = (r for r in cells(points) if r[0] == "loss_series" and r[1] == "1.00")
    assert (row[2], row[4], row[5]) == ("–", "–", "–")


def test_runs_that_claim_the_same_have_no_tradeoff(private, changed):
    for runs in ([changed(), changed({"seed": 4})], [private(8.0), private(8.0, {"seed": 4})]):
        assert compare(runs).tradeoff == ()
        assert "Privacy against utility" not in render(runs)
        assert "claimed" not in printed(comparison_table(runs))


def test_the_page_has_the_figure_and_its_table(sweep):
    page = Page(render(sweep))
    assert "Privacy against utility" in page.text
    (svg,) = (t for t in [figure(compare(sweep).tradeoff, "0.01")] if t)
    assert {"AUC", "TPR@1%FPR", "test accuracy", "ε claimed", "none (∞)"} <= set(texts(svg))
    assert {"1", "2", "5", "10"} <= set(texts(svg))
    assert "loss_series" in texts(svg)
    assert "loss_series 8.00 0.710 [0.685, 0.735]" in page.text
    assert "loss_series none 0.910 [0.885, 0.935]" in page.text


def test_claims_that_do_not_cover_the_vantage_are_told_apart(private):
    runs = [private(epsilon, covered=False) for epsilon in (1.0, 8.0)]
    text = printed(comparison_table(runs))
    assert "(8.00)" in text
    assert "in parentheses: claimed against others" in text
    assert "(8.00)" in Page(render(runs)).text
    covered = printed(comparison_table([private(1.0), private(8.0)]))
    assert "8.00" in covered
    assert "parentheses" not in covered


def test_a_figure_needs_a_claim_above_zero_and_draws_zero_at_its_left_end():
    assert figure([point(None), point(0.0)], "0.01") is None
    svg = figure([point(0.0), point(2.0), point(None)], "0.01")
    assert svg is not None
    assert "nan" not in svg
    assert {"2", "none (∞)"} <= set(texts(svg))


def test_a_hundred_columns_hold_the_claim_too(sweep):
    text = printed(comparison_table(sweep), 100)
    rows = [row.split() for row in text.splitlines() if "loss_series" in row]
    assert [row[:4] for row in rows] == [
        ["8.0", "loss_series", "3", "8.00"],
        ["1.0", "loss_series", "3", "1.00"],
        ["–", "loss_series", "3", "none"],
    ]
