import json

import numpy as np
import pytest
from federations import rng
from scipy.stats import binom, norm

from fedmia.audit import epsilon_lower_bound, epsilon_one_run_from_attacks
from fedmia.metrics import auc, rate_above
from fedmia.power import (
    auc_half_width,
    binormal_tpr,
    describe,
    fpr_upper,
    largest_epsilon,
    nonmembers_for,
    nonmembers_within,
    plan,
    smallest_fpr,
    tpr_half_width,
)


def test_none_of_897_wrong_accusations_leave_a_third_of_a_percent():
    assert smallest_fpr(897) == pytest.approx(0.001115, abs=1e-6)
    assert fpr_upper(0.001, 897, 0.95) == pytest.approx(0.0033, abs=5e-5)
    assert (1 - fpr_upper(0.001, 897, 0.95)) ** 897 == pytest.approx(0.05)


def test_a_rate_needs_its_inverse_in_nonmembers_and_ten_times_that_to_be_of_use():
    assert [nonmembers_for(f, 1) for f in (0.1, 0.01, 0.001, 0.03)] == [10, 100, 1000, 34]
    assert nonmembers_for(0.001, 10) == 10_000


def test_the_nonmembers_for_a_factor_are_the_fewest():
    found = nonmembers_within(0.01, 2, 0.95)
    events = round(found * 0.01)
    # at twice the rate, so few accusations or fewer have at most the remaining chance
    assert binom.cdf(events, found, 0.02) <= 0.05
    assert binom.cdf(events - 1, nonmembers_for(0.01, events - 1), 0.02) > 0.05
    assert nonmembers_within(0.01, 1.5, 0.95) > found
    with pytest.raises(ValueError, match="factor=1: expected above 1"):
        nonmembers_within(0.01, 1, 0.95)
    with pytest.raises(ValueError, match="below 1/fpr=2"):
        nonmembers_within(0.5, 2, 0.95)


@pytest.mark.parametrize(
    ("area", "fpr", "members", "nonmembers"), [(0.7, 0.1, 200, 900), (0.9, 0.01, 200, 2000)]
)
def test_the_width_is_what_repeating_the_run_shows(area, fpr, members, nonmembers):
    g, shift = rng(), np.sqrt(2) * norm.ppf(area)
    found = [
        rate_above(shift + g.normal(size=members), g.normal(size=nonmembers), fpr)
        for _ in range(1500)
    ]
    assert np.mean(found) == pytest.approx(binormal_tpr(area, fpr), rel=0.03)
    width = tpr_half_width(area, fpr, members, nonmembers, 0.95)
    assert width == pytest.approx(1.96 * np.std(found), rel=0.08)


def test_an_attack_that_guesses_finds_as_many_members_as_it_accuses_wrongly():
    assert binormal_tpr(0.5, 0.03) == pytest.approx(0.03)
    expected = 1.959964 * np.sqrt(0.03 * 0.97 * (1 / 100 + 1 / 400))
    assert tpr_half_width(0.5, 0.03, 100, 400, 0.95) == pytest.approx(expected, rel=1e-6)


def test_the_width_of_chance_is_what_noise_shows():
    members = np.arange(300) < 60
    found = [auc(rng(s).normal(size=300), members) for s in range(800)]
    assert auc_half_width(60, 240, 0.95) == pytest.approx(1.96 * np.std(found), rel=0.08)


def test_the_largest_epsilon_is_what_a_perfect_attack_proves():
    owner = np.append(np.zeros(41, dtype=int), np.full(81, -1))
    perfect = (owner >= 0).astype(float)
    expected = largest_epsilon(41, 81, 1e-5, 0.95)
    found = epsilon_lower_bound(perfect, owner == 0, 1e-5, 0.95, rng())
    assert expected["threshold"] == pytest.approx(found)
    one, ceiling = epsilon_one_run_from_attacks(
        {"a": perfect[None]}, owner, np.zeros(122), 1e-5, 0.95, rng()
    )
    assert expected["one_run"] == one == ceiling
    with pytest.raises(ValueError, match="0 members"):
        largest_epsilon(1, 10, 0.0, 0.95)


def test_every_further_attack_lowers_what_can_be_shown():
    alone, among = (largest_epsilon(200, 900, 0.0, 0.95, attacks) for attacks in (1, 50))
    assert among["one_run"] < alone["one_run"] - 0.5
    assert among["threshold"] < alone["threshold"] - 0.5


def test_a_plan_says_what_is_not_resolved():
    coarse, fine = plan(200, 897, [0.001, 0.1], 0.95)
    assert (coarse.resolved, coarse.tpr, coarse.half_width) == (False, None, None)
    assert (coarse.false_positives, coarse.for_one, coarse.for_ten) == (0, 1000, 10_000)
    assert coarse.within_two == nonmembers_within(0.001, 2, 0.95)
    assert fine.resolved
    assert fine.false_positives == 89
    assert fine.tpr == binormal_tpr(0.7, 0.1)
    assert fine.half_width == tpr_half_width(0.7, 0.1, 200, 897, 0.95)
    assert plan(9, 9, [0.6], 0.95)[0].within_two is None


def test_the_description_is_one_line_and_plain_rows():
    rows, text = describe(200, 897, [0.1, 0.001], 0.95)
    assert json.loads(json.dumps(rows))[1]["for_one"] == 1000
    assert "\n" not in text
    assert text.startswith("200 members, 897 non-members: the smallest FPR is 0.0011;")
    assert text.endswith("; no TPR at 0.001 (needs 1000)")
    assert "no TPR" not in describe(200, 10_000, [0.1, 0.001], 0.95)[1]


@pytest.mark.parametrize(
    ("fprs", "confidence", "auc_"), [([0.0], 0.95, 0.7), ([0.1], 1.0, 0.7), ([0.1], 0.95, 1.0)]
)
def test_values_out_of_range_are_refused(fprs, confidence, auc_):
    with pytest.raises(ValueError, match=r"fprs=.*expected \(0, 1\)"):
        plan(10, 10, fprs, confidence, auc_)
    with pytest.raises(ValueError, match="0 members"):
        plan(0, 10, [0.1], 0.95)
