import re

import pytest
from rich.console import Console

from fedmia.report import suspicion
from fedmia.report.html import render
from fedmia.report.table import summary

FLAGS = [
    {
        "round": 2,
        "client": 1,
        "reason": "its reputation is too low",
        "evidence": {"reputation": 0.125, "norm_over_median": 12.0},
        "isolated": True,
    },
    {"round": 3, "client": 2, "reason": "<b>odd</b>", "evidence": {}, "isolated": False},
]
REPUTATIONS = [
    {"round": 1, "clients": {"0": 0.5, "1": 0.5}, "isolated": []},
    {"round": 2, "clients": {"0": 0.6, "1": 0.1}, "isolated": [1]},
    {"round": 3, "clients": {"0": 0.7, "1": 0.1, "2": 0.5}, "isolated": [1]},
]
FOUND = {
    "flags": FLAGS,
    "reputations": REPUTATIONS,
    "attackers": [1, 3],
    "detection_rate": 0.5,
    "isolation_rate": 0.5,
    "false_positive_rate": 0.125,
    "false_isolation_rate": 0.0,
    "first_detection": 2,
}
QUIET = {
    "flags": [],
    "reputations": [],
    "attackers": [],
    "detection_rate": None,
    "isolation_rate": None,
    "false_positive_rate": 0.0,
    "false_isolation_rate": 0.0,
    "first_detection": None,
}


def printed(result):
    console = Console(width=300, record=True)
    console.print(summary(result))
    return console.export_text()


def test_one_line_says_who_was_flagged_and_how_well_it_met_the_attackers(changed):
    text = printed(changed({"suspicion": FOUND}))
    said = (
        "clients 1, 2 flagged, client 1 left out; 50% of attackers found, the first in round 2; "
        "12% of honest clients flagged"
    )
    assert re.search(rf"suspicion +{re.escape(said)}", text)


def test_attackers_of_whom_nobody_was_flagged_are_said(changed):
    missed = {**QUIET, "attackers": [3], "detection_rate": 0.0}
    assert "nobody flagged, nobody left out; 0% of attackers found; 0%" in printed(
        changed({"suspicion": missed})
    )


def test_the_terminal_is_silent_where_nobody_was_flagged(changed, result):
    assert "suspicion" not in printed(changed({"suspicion": QUIET}))
    assert "suspicion" not in printed(result)


def test_the_page_has_rates_chart_and_audit_list(changed):
    page = render(changed({"suspicion": FOUND}))
    assert "<h2>Clients under suspicion</h2>" in page
    assert "reputation 0.125, norm over median 12" in page
    assert "<dt>attackers flagged</dt><dd>50.0%</dd>" in page
    assert "Reputation of 3 clients by round" in page
    assert "client 1 (attacks)" in page
    assert "<b>odd</b>" not in page
    assert "&lt;b&gt;odd&lt;/b&gt;" in page
    assert "<script" not in page


def test_a_run_without_suspicion_has_no_such_section(result):
    assert "Clients under suspicion" not in render(result)


def test_a_quiet_run_says_that_nobody_was_flagged(changed):
    page = render(changed({"suspicion": QUIET}))
    assert "Nobody was flagged." in page
    assert "<dt>attackers flagged</dt><dd>–</dd>" in page


def test_the_chart_has_each_clients_track_its_isolation_and_its_flags():
    drawn = suspicion.chart(FOUND)
    assert drawn is not None
    first, second, third = drawn.split("<g ")[1:]
    heights = [float(y) for y in re.findall(r",([\d.]+)", re.search(r'points="(.*?)"', first)[1])]
    top, bottom = 17.0, 57.0
    wanted = [bottom - value * (bottom - top) for value in (0.5, 0.6, 0.7, 0.7)]
    assert heights == pytest.approx(wanted)
    tint = 'fill-opacity=".22"'
    assert [cell.count(tint) for cell in (first, second, third)] == [0, 1, 0]
    assert "M64.0 17H160.0" in second, "tinted from the second of three rounds to the end"
    assert [cell.count("v4") for cell in (first, second, third)] == [0, 1, 1]


def test_without_reputations_there_is_no_chart():
    assert suspicion.chart({**FOUND, "reputations": []}) is None


def test_of_many_clients_the_urgent_ones_are_drawn_first():
    clients = {str(client): 0.5 for client in range(200)}
    rows = [{"round": 1, "clients": clients, "isolated": []}]
    many = {
        **FOUND,
        "reputations": rows,
        "attackers": [150],
        "flags": [{**FLAGS[0], "client": 199}],
    }
    drawn = suspicion.chart(many)
    names = re.findall(r">client (\d+)", drawn)
    assert len(names) == suspicion.MOST_CHARTS
    assert names[-2:] == ["150", "199"]
    assert names[0] == "0"


def test_a_long_audit_list_is_cut_and_says_so(changed):
    flags = [{**FLAGS[1], "round": number} for number in range(1, 151)]
    page = render(changed({"suspicion": {**FOUND, "flags": flags}}))
    assert "The first 100 entries" in page
    assert page.count("&lt;b&gt;odd&lt;/b&gt;") == suspicion.MOST_ROWS


def test_spans_are_runs_of_consecutive_rounds():
    assert suspicion.spans([2, 3, 4, 7, 9, 10]) == [(2, 4), (7, 7), (9, 10)]
    assert suspicion.spans([]) == []
