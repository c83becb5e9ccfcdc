import re
import xml.etree.ElementTree as ET

from test_report_claims import CANARIES

from fedmia.report.epsilons import figure


def texts(svg):
    return [t for node in ET.fromstring(svg).iter() for t in [node.text or ""] if t.strip()]


def test_claimed_proved_and_ceiling_are_drawn_by_round(private):
    said = texts(figure(private(8.0)))
    for label in ("claimed", "proved at least", "ceiling of that", "claimed for replacing one"):
        assert label in said
    assert {"round", "ε"} <= set(said)


def test_a_claim_against_others_alone_is_named_so(private):
    said = texts(figure(private(8.0, covered=False)))
    assert "strategy, not against this vantage" in said
    assert "claimed" not in said


def test_canary_clients_alone_are_a_figure(changed):
    said = texts(figure(changed({"privacy.canary_clients": CANARIES})))
    assert "proved by canary clients" in said


def test_bounds_that_are_missing_in_some_rounds_leave_gaps(private):
    rounds = [
        {"round": 1, "epsilon_claimed": 1.0},
        {"round": 2, "epsilon_claimed": None, "epsilon_lower_bound": 0.5, "epsilon_ceiling": None},
        {"round": 3, "epsilon_claimed": 2.0, "epsilon_lower_bound": None},
    ]
    svg = figure(private(2.0, {"privacy.per_round": rounds}))
    said = texts(svg)
    assert "proved at least" in said
    assert "ceiling of that" not in said
    assert "nan" not in svg


def test_without_a_claim_or_canaries_there_is_no_figure(changed, private):
    assert figure(changed()) is None
    assert figure(private(None)) is None


def test_a_bound_above_the_claim_is_drawn_above_it(private):
    rounds = [{"round": r, "epsilon_claimed": 1.0, "epsilon_lower_bound": 3.0} for r in (1, 2)]
    svg = figure(private(1.0, {"privacy.per_round": rounds, "privacy.epsilon_comparable": 1.0}))
    line = re.search(r'd="M ([\d.]+) ([\d.]+) \nL [\d.]+ \2 \n" clip[^>]*stroke: #000000', svg)
    dots = re.findall(r'<use xlink:href="#[^"]*" x="[\d.]+" y="([\d.]+)" style="fill: #d55e00', svg)
    assert line is not None
    assert len(dots) == 3  # the last is the legend's
    assert all(float(y) < float(line[2]) for y in dots[:2])  # upwards in a picture
