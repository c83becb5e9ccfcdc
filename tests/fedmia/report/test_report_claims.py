import re

import pytest
from test_report_html import Page
from test_report_table import line as row
from test_report_table import printed

from fedmia.report import claims
from fedmia.report.html import render
from fedmia.report.table import summary

CANARIES = {
    "count": 20,
    "dimension": 85_002,
    "epsilon_estimate_final": 1.234,
    "epsilon_estimate_all_rounds": 2.345,
    "epsilon_lower_bound": 0.456,
    "epsilon_ceiling": 3.21,
    "normality": 0.678,
    "per_round": [
        {"round": 1, "epsilon_lower_bound": 0.111},
        {"round": 30, "epsilon_lower_bound": 0.456},
    ],
}


def test_claim_and_proof_stand_in_one_line(private) -> None:
    assert claims.line(private(8.0)) == (
        "8.00 (client, add/remove, δ 1e-5, PLD; aggregate, participant, final_model)"
        " · 17.00 for replacing one · proved at least 0.91 (ceiling 4.17)"
    )
    said = claims.line(private(8.0, {"privacy.epsilon_comparable": 8.0}))
    assert said is not None
    assert "for replacing one" not in said
    nothing = {"privacy.epsilon_lower_bound": None}
    assert (claims.line(private(8.0, nothing)) or "").endswith("· no lower bound was measured")


def test_a_vantage_that_no_claim_covers_is_named_and_what_is_claimed_against_others(
    private,
) -> None:
    said = claims.line(private(8.0, covered=False)) or ""
    assert said.startswith(
        "no claim covers vantage 'server', others hold: 8.00 (client, add/remove, δ 1e-5, PLD; "
        "aggregate, participant, final_model) · proved at least 0.91"
    )


def test_without_noise_the_reasons_are_told_in_place_of_epsilon(private) -> None:
    said = claims.line(private(None)) or ""
    assert said.startswith("none (client; aggregate, participant, final_model: the server is trust")


def test_where_nothing_is_claimed_nothing_is_said(changed) -> None:
    assert claims.line(changed()) is None
    assert "ε claimed" not in printed(summary(changed()))
    assert "Claimed and measured" not in render(changed())


def test_the_claim_that_covers_is_the_one_that_the_run_is_held_against(private, claim) -> None:
    weak = claim(20.0, part="client.defenses.local_dp")
    strong = claim(8.0)
    elsewhere = claim(8.0, part="elsewhere", holds_against=["server"])
    found = claims.covering(private(8.0, {"privacy.claims": [weak, elsewhere, strong]}))
    assert found == strong
    assert claims.covering(private(8.0, covered=False)) is None


def test_the_summary_has_the_line_after_the_bound_and_the_alarm_in_red(private) -> None:
    alarm = "attacks prove ε ≥ 0.91 for replacing one record, claimed is 0.50"
    result = private(8.0, {"privacy.alarm": alarm, "notes": ["plain", alarm]})
    text = re.sub("\x1b.*?m", "", printed(summary(result), width=250))
    assert row(text, "ε claimed").startswith("ε claimed  8.00 (client, add/remove")
    assert text.index("ε claimed") > text.index("privacy ")
    assert text.count(alarm) == 1
    assert f"\x1b[1;31malarm      {alarm}" in printed(summary(result), width=250, colour=True)
    assert "alarm" not in printed(summary(private(8.0)))


def test_the_page_has_a_row_a_claim_with_its_reasons(private, claim) -> None:
    local = claim(None, part="client.defenses.local_dp", method=None, reasons=["<no> noise"])
    page = Page(render(private(8.0, {"privacy.claims": [claim(8.0), local]})))
    assert (
        "strategy client add/remove 8.00 PLD 8.50 17.00 1e-5 30 "
        "aggregate, participant, final_model seeded"
    ) in page.text
    assert "client.defenses.local_dp client add/remove none – –" in page.text
    assert "strategy : the server is trusted to add noise" in page.text
    assert "client.defenses.local_dp : <no> noise" in page.text
    assert "ε at least 0.91 (about one record, 95% confidence) ceiling 4.17" in page.text
    assert "claimed of the same 17.00" in page.text


def test_the_alarm_is_a_red_block_and_not_among_the_notes(private) -> None:
    alarm = "attacks prove <more> than is claimed"
    changes = {"privacy.alarm": alarm, "privacy.stopped": "before round 9: x", "notes": [alarm]}
    text = render(private(8.0, changes))
    (block,) = re.findall(r'<div class="failure">(.*?)</div>', text, re.S)
    assert Page(block).text == f"Alarm. {alarm}"
    assert Page(text).text.count(alarm) == 1
    assert "Training stopped before round 9: x." in Page(text).text
    assert '<div class="failure">' not in render(private(8.0))


def test_canary_clients_have_their_bound_estimates_and_rounds(changed) -> None:
    page = Page(render(changed({"privacy.canary_clients": CANARIES})))
    for words in (
        "canary clients 20 in 85,002 dimensions ε at least 0.46 ceiling 3.21",
        "estimate, final model 1.23 estimate, all rounds 2.35 normality, p 0.678",
        "round ε at least 1 0.11 30 0.46",
    ):
        assert words in page.text, words


@pytest.mark.parametrize(("value", "shown"), [(1e-5, "1e-5"), (0.001, "0.001"), (None, "–")])
def test_delta_is_written_as_people_do(value, shown) -> None:
    assert claims.delta(value) == shown
