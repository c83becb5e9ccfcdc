"""The page of defences: the strongest attacks, paired changes, and the front of the best."""

import pytest
from test_report_html import Page as Html
from test_report_table import printed

from fedmia.report.defense_figure import figure
from fedmia.report.defense_table import cells, markdown, table
from fedmia.report.defenses import page, pareto
from fedmia.report.html import render_defenses

MODS = {"_target_": "clients.defenses.top_k.TopK", "share": 0.1}


@pytest.fixture
def run(changed):
    """Return a maker of a run with the AUCs of its two passive attacks and an adaptive one."""

    def make(name, seed, aucs, accuracy=0.7, adaptive=None, config=None, vantage="server"):
        changes = {
            "seed": seed,
            "config.seed": seed,
            "config.defense": name,
            "config.client": {"defenses": {} if name == "none" else {name: MODS}},
            "utility.test_accuracy": accuracy,
            "timing.per_round_s": 0.5,
        }
        document = changed(changes | (config or {}))
        measured = [a for a in document["attacks"] if a["status"] == "ok"]
        for attack, auc in zip(measured, aucs, strict=False):
            attack["auc"], attack["auc_ci"] = auc, [auc - 0.01, auc + 0.01]
        kept = measured[: len(aucs)]
        if adaptive is not None:
            own = {"name": f"{kept[0]['name']}_adaptive", "adaptive": True, "auc": adaptive}
            kept.append({**kept[0], **own})
        for attack in kept:
            attack["vantage"] = vantage
        document["attacks"] = kept
        return document

    return make


@pytest.fixture
def runs(run):
    found = []
    for seed in range(3):
        shift = seed / 100
        found.append(run("none", seed, [0.6 + shift, 0.8 + shift], 0.7 + shift))
        found.append(run("top_k", seed, [0.55, 0.5], 0.65 + shift, adaptive=0.7 + shift))
        found.append(run("noise", seed, [0.9, 0.6], 0.6 + shift))
    return found


def row(found, name):
    return next(r for r in found.rows if r.name == name)


def test_the_line_without_a_defence_comes_first_and_the_strongest_attack_is_named(runs):
    found = page(runs)
    assert [r.name for r in found.rows] == ["none", "noise", "top_k"]
    none = row(found, "none")
    assert none.passive.attack == "loss_series"
    assert none.passive.auc.mean == pytest.approx(0.81)
    assert (none.adaptive, none.auc_change, none.baseline) == (None, None, None)
    assert none.seeds == (0, 1, 2)
    assert none.seconds == 0.5


def test_the_adaptive_attack_counts_where_it_is_the_stronger(runs):
    top_k = row(page(runs), "top_k")
    assert top_k.passive.attack == "yeom_loss"
    assert top_k.adaptive.attack == "yeom_loss_adaptive"
    assert top_k.strongest == top_k.adaptive
    # (0.70, 0.71, 0.72) less (0.80, 0.81, 0.82), and accuracies that differ by 0.05 each
    assert top_k.auc_change.mean == pytest.approx(-0.1)
    assert top_k.accuracy_change.mean == pytest.approx(-0.05)
    assert top_k.accuracy_change.low == pytest.approx(-0.05)
    assert top_k.baseline == "none"


def test_a_defence_with_less_accuracy_and_more_leakage_is_not_on_the_front(runs):
    found = page(runs)
    assert {r.name for r in found.rows if r.front} == {"none", "top_k"} == pareto(found.rows)


def test_every_vantage_has_a_front_of_its_own(run):
    released = {"config.defense": "released"}
    runs = [run("none", s, [0.8]) for s in range(3)]
    runs += [run("none", s, [0.6], vantage="final_model", config=released) for s in range(3)]
    assert pareto(page(runs).rows) == {"none", "released"}


def test_a_defence_is_compared_at_its_own_vantage(run):
    runs = [run("none", s, [0.9]) for s in range(3)]
    runs += [
        run("none", s, [0.6], vantage="final_model", config={"config.defense": "released"})
        for s in range(3)
    ]
    runs += [run("guard", s, [0.55], vantage="final_model") for s in range(3)]
    for released in runs[3:6]:
        released["config"]["client"] = {}
    guard = row(page(runs), "guard")
    assert guard.baseline == "released"
    assert guard.auc_change.mean == pytest.approx(-0.05)


def test_other_records_are_no_pair(run):
    runs = [run("none", s, [0.8]) for s in range(3)]
    runs += [run("top_k", s, [0.7], config={"candidates.sha256": "c3" * 32}) for s in range(3)]
    top_k = row(page(runs), "top_k")
    assert (top_k.auc_change, top_k.accuracy_change) == (None, None)


def test_a_name_that_stands_for_two_configurations_is_told_apart(run):
    runs = [run("none", 0, [0.8])]
    for share in (0.1, 0.2):
        mods = {"config.client": {"defenses": {"top_k": MODS | {"share": share}}}}
        runs.append(run("top_k", 0, [0.7], config=mods))
    names = [r.name for r in page(runs).rows]
    assert names == [
        "none",
        "top_k · client.defenses.top_k.share=0.1",
        "top_k · client.defenses.top_k.share=0.2",
    ]


def test_an_attack_that_one_seed_lacks_does_not_count(run):
    runs = [run("none", 0, [0.6, 0.9]), run("none", 1, [0.6]), run("top_k", 0, [0.7])]
    assert row(page(runs), "none").passive.attack == "yeom_loss"


def test_runs_of_one_defence_or_of_none_make_no_page(run, changed):
    assert page([run("none", s, [0.8]) for s in range(3)]) is None
    assert page([changed(), changed({"seed": 4})]) is None


def test_a_defence_under_which_nothing_was_measured_says_why(run):
    hidden = run("secagg", 0, [])
    hidden["attacks"] = [
        {"name": "a", "vantage": "server", "status": "not_applicable", "reason": "only the sum"}
    ]
    found = page([run("none", 0, [0.8]), hidden])
    assert row(found, "secagg").problem == "only the sum"
    assert "only the sum" in "\n".join(cells(found)[1])


def test_table_page_and_markdown_say_the_same(runs):
    found = page(runs)
    said = printed(table(found), 260)
    text, html = markdown(found), render_defenses(runs, found)
    for words in ("top_k ★", "yeom_loss_adaptive", "-0.100 [-0.", "-0.050 [-0.050, -0.050]"):
        assert words in said
        assert words in text
        assert words in html
    assert "noise ★" not in text
    assert text.startswith("| defence | test acc. |")
    assert "Seeds 0, 1, 2." in text
    assert Html(html).tags.count("tr") == 4


def test_the_figure_shows_every_defence_that_was_measured(runs):
    drawn = figure(page(runs))
    assert all(f">{name}<" in drawn for name in ("none", "noise", "top_k"))
    assert figure(page([*runs[:1], *runs[1:2]])) is not None
