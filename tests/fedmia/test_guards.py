from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from fedmia.guards import check, repeats, surprise
from fedmia.results import Guard
from fedmia.schema import MismatchError
from fedmia.schema import check as follows

FACTS: dict[str, Any] = {
    "candidates_sha256": "0123456789abcdef" * 4,
    "shared": 0,
    "repeated": 0,
    "null_run": False,
    "test_accuracy": 0.7,
    "seeds": 5,
}


def attack(name="a", auc=0.8, half=0.03, **fields) -> Any:
    return {
        "name": name,
        "vantage": "server",
        "status": "ok",
        "auc": auc,
        "auc_ci": [auc - half, auc + half],
        "tpr_at_fpr": {"0.1": 0.4, "0.01": 0.1, "0.001": None},
        "auc_label_matched": auc,
        "other_members": None,
        "achieved_fpr": {"0.1": 0.1, "0.01": 0.011, "0.001": None},
        "ppv": {"0.01": 0.09, "0.1": 0.5, "0.5": 0.9},
        "min_fpr": 1 / 900,
    } | fields


def blind(auc=0.5, half=0.03, name="label_prior") -> Any:
    return attack(name, auc, half, vantage="blind")


def guards(attacks=None, baselines=None, **facts) -> dict[str, tuple[str, str]]:
    attacks = [attack()] if attacks is None else attacks
    baselines = [blind()] if baselines is None else baselines
    found = check(attacks, baselines, **(FACTS | facts))
    return {guard["name"]: (guard["status"], guard["detail"]) for guard in found}


def test_a_clean_run_passes_every_guard_that_can_be_judged():
    found = guards()
    assert {name for name, (status, _) in found.items() if status in ("warn", "fail")} == set()
    assert len(found) == 16
    assert found["fixed candidates"] == ("pass", "one list for all attacks, 0123456789ab")
    assert found["utility"][0] == found["seeds"][0] == "pass"
    assert all("\n" not in detail for _, detail in found.values())


def test_masked_words_are_judged_where_there_are_some():
    seen: Any = {"words": 5000, "bit_p": 0.5, "byte_p": 0.25, "pair_p": 1.0, "verdict": "uniform"}
    said = "p = 0.5 (bits), 0.25 (bytes), 1 (pairs)"
    assert "masked words" not in guards()
    assert guards(leak_check=seen)["masked words"] == (
        "pass",
        f"5,000 masked words look uniform: {said}",
    )
    assert guards(leak_check=seen | {"verdict": "not uniform"})["masked words"][0] == "fail"
    assert guards(leak_check=seen | {"verdict": "too few words"})["masked words"][0] == "info"


def test_an_adaptive_clip_is_judged_where_there_is_one():
    assert "adaptive clip" not in guards()
    assert guards(clip_astray="")["adaptive clip"][0] == "pass"
    told = guards(clip_astray="adaptive clip: 99% of updates")["adaptive clip"]
    assert told == ("warn", "99% of updates")


def test_the_guards_follow_the_schema():
    follows(check([attack()], [blind()], **FACTS), list[Guard], "guards")
    with pytest.raises(MismatchError, match=r"guards.*status='x': expected"):
        follows([{"name": "n", "status": "x", "detail": ""}], list[Guard], "guards")


def test_an_attack_that_is_wholly_below_one_half_may_have_the_wrong_direction():
    asks = "is the score's direction right?"
    assert guards([attack(), attack("b", 0.48)])["direction"][0] == "pass"
    assert guards([attack(), attack("b", 0.2)])["direction"] == (
        "warn",
        f"worse than chance: b; beyond what 2 attacks explain; {asks}",
    )
    some = [attack("b", 0.469)] + [attack(str(i)) for i in range(19)]
    assert guards(some)["direction"] == (
        "warn",
        f"worse than chance: b; no more than what 20 attacks explain; {asks}",
    )


@pytest.mark.parametrize(("shared", "repeated"), [(2, 0), (0, 3)])
def test_records_on_both_sides_fail(shared, repeated):
    status, detail = guards(shared=shared, repeated=repeated)["disjoint"]
    assert status == "fail"
    assert detail == f"{shared} held-out candidates were trained on, {repeated} repeat another one"


def test_repeated_records_are_counted_by_their_features():
    x = np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [1.0, 2.0], [2.0, 1.0]], dtype=np.float32)
    assert repeats(x) == 2
    assert repeats(x.reshape(5, 2, 1)) == 2
    assert repeats(x[:2]) == 0
    assert repeats(np.asfortranarray(x)) == 2


def test_a_blind_baseline_off_one_half_warns_and_one_beyond_chance_fails():
    assert guards(baselines=[blind(0.5), blind(0.52)])["blind baselines"][0] == "pass"
    three = [blind(name="b"), blind(name="c")]
    # 1.98 standard errors: one of three is that far off in 14 of 100 clean runs
    status, detail = guards(baselines=[blind(0.5305, 0.03), *three])["blind baselines"]
    assert status == "warn"
    assert detail == "off 0.5: label_prior 0.530; no more than what 3 baselines explain"
    assert guards(baselines=[blind(0.6), *three])["blind baselines"][0] == "fail"
    assert guards(baselines=[blind(0.4), *three])["blind baselines"][0] == "fail"


def test_baselines_without_a_number_do_not_pass():
    failed = {"name": "raw_features", "vantage": "blind", "status": "failed", "reason": "x"}
    assert guards(baselines=[])["blind baselines"] == ("warn", "without a number: none was run")
    status, detail = guards(baselines=[blind(), failed])["blind baselines"]
    assert (status, detail) == ("warn", "without a number: raw_features")


def test_an_auc_that_labels_account_for_warns_and_one_that_they_hide_does_not():
    rows = [attack("near", auc_label_matched=0.79), attack("far", auc_label_matched=0.7)]
    status, detail = guards(rows)["label-matched AUC"]
    assert status == "warn"
    assert detail == "largest drop 0.800 to 0.700 (far); below the AUC's interval: far"
    assert guards(rows[:1])["label-matched AUC"] == ("pass", "largest drop 0.800 to 0.790 (near)")
    assert guards([attack(auc_label_matched=0.9)])["label-matched AUC"][0] == "pass"
    none = [attack(auc_label_matched=None)]
    assert guards(none)["label-matched AUC"] == ("info", "no attack has one")


def test_two_populations_of_nonmembers_are_kept_apart():
    both = attack(other_members={"auc": 0.6, "auc_ci": [0.5, 0.7]})
    assert guards([both])["populations apart"][0] == "pass"
    assert guards()["populations apart"][0] == "info"


def test_the_worst_achieved_rate_is_shown_and_more_than_chance_explains_warns():
    rows = [attack("good"), attack("bad", achieved_fpr={"0.01": 0.2})]
    status, detail = guards(rows)["calibration apart"]
    assert status == "warn"
    assert detail.startswith("nominal FPR 1%, achieved at most 20.00% (bad); chance explains ")
    rows[1]["achieved_fpr"] = {"0.01": 0.023}
    status, detail = guards(rows)["calibration apart"]
    assert status == "pass", "a threshold set on half of the records misses its rate that much"
    assert guards(rows[:1])["calibration apart"][0] == "pass"
    unresolved = [attack(achieved_fpr={"0.01": None})]
    assert guards(unresolved)["calibration apart"][0] == "info"


def test_no_rate_may_be_given_below_one_over_the_nonmembers():
    status, detail = guards()["minimum FPR"]
    assert (status, detail) == ("pass", "1/N = 0.11%; no rate is given at 0.1%")
    told = attack("told", tpr_at_fpr={"0.001": 0.01, "0.1": 0.4})
    status, detail = guards([told])["minimum FPR"]
    assert status == "fail"
    assert "told" in detail
    exact = attack(tpr_at_fpr={"0.01": 0.1}, min_fpr=0.01)
    assert guards([exact])["minimum FPR"] == ("pass", "1/N = 1.00%")


def test_results_from_before_these_fields_are_not_judged():
    old = attack()
    for field in ("achieved_fpr", "ppv", "min_fpr"):
        del old[field]
    found = guards([old])
    for name in ("calibration apart", "minimum FPR", "prior and precision"):
        assert found[name][0] == "info"


def test_a_null_run_fails_only_beyond_what_the_number_of_attacks_explains():
    quiet = [attack(f"a{i}", 0.5) for i in range(30)]
    assert guards(quiet, null_run=True)["null run"] == ("pass", "all 30 intervals cover 0.5")
    lucky = [*quiet, attack("lucky", 0.5 + 1.02 * 0.03)]
    status, detail = guards(lucky, null_run=True)["null run"]
    assert status == "pass"
    assert detail == "off 0.5: lucky; no more than what 31 attacks explain (Bonferroni)"
    for auc in (0.6, 0.4):
        loud = [*quiet, attack("loud", auc)]
        assert guards(loud, null_run=True)["null run"][0] == "fail"
    assert guards([attack("alone", 0.531)], null_run=True)["null run"][0] == "fail"
    assert guards([], null_run=True)["null run"] == ("warn", "no attack was measured")
    assert guards(quiet)["null run"] == ("info", "not one")


def test_a_surprise_is_the_p_value_behind_the_interval():
    z = norm.ppf(0.975)
    for shift in (0.0, 1.0, z, 3.0):
        ends = 1 / (1 + np.exp(-0.1 * (shift + z * np.array([-1, 0, 1]))))
        found = surprise(ends[1], [ends[0], ends[2]], 0.95)
        assert found == pytest.approx(2 * norm.sf(shift), rel=1e-6)
    assert surprise(0.5, [0.5, 0.5], 0.95) == 1.0
    assert surprise(0.7, [0.7, 0.7], 0.95) == 0.0
    assert 0 <= surprise(1.0, [0.9, 1.0], 0.95) < 1e-3


def test_the_precision_of_the_median_attack_is_shown_at_every_prior():
    middling = attack("middling", ppv={"0.01": 0.5, "0.1": 0.8, "0.5": 1.0})
    strong = attack("strong", ppv={"0.01": 1.0, "0.1": 1.0, "0.5": 1.0})
    rows = [strong, attack("weak"), middling]
    status, detail = guards(rows)["prior and precision"]
    assert status == "info"
    figures = "50% with 1% members, 80% with 10% members, 100% with 50% members"
    assert detail.endswith(f"{figures} (median of 3 attacks, middling)")
    unresolved = attack(ppv={"0.01": None, "0.1": None, "0.5": None})
    assert guards([unresolved])["prior and precision"][1].startswith("not resolved")


def test_what_is_picked_by_truth_or_otherwise_is_told():
    assert guards()["no choice by truth"] == ("pass", "One attack, not picked after the fact")
    status, detail = guards([attack("a"), attack("b")], selects={"b": "the round, by its entropy"})[
        "no choice by truth"
    ]
    assert status == "info"
    named = "The strongest of 2 attacks is named after the fact"
    assert detail == f"b: the round, by its entropy. {named}"


def test_a_defence_is_attacked_as_transmitted_and_warns_without_an_adaptive_attacker():
    found = guards(defences=["Clip", "Noise"])
    assert found["transmitted artefact"][1] == "attacked is what was sent, after Clip, Noise"
    assert found["adaptive attacker"] == ("warn", "no attack here adapts to Clip, Noise")
    found = guards(defences=["Clip", "Noise"], adaptive=["Noise"])
    assert found["adaptive attacker"] == ("warn", "no attack here adapts to Clip")
    assert guards(defences=["Clip"], adaptive=["Clip"])["adaptive attacker"][0] == "pass"
    assert guards()["adaptive attacker"] == ("info", "no defence")


def test_utility_and_seeds_warn_where_they_are_missing():
    assert guards(test_accuracy=None)["utility"][0] == "warn"
    assert guards(seeds=1)["seeds"] == ("warn", "one seed: run at least 5 and compare those")
    assert guards(seeds=4)["seeds"][0] == "warn"


def test_a_proved_epsilon_above_the_claimed_one_fails():
    assert guards()["accountant"] == ("info", "no ε is claimed")
    broken = guards(epsilon_claimed=1.0, epsilon_lower_bound=1.8)["accountant"]
    assert broken == ("fail", "claimed ε = 1.00, attacks prove ε ≥ 1.80")
    assert guards(epsilon_claimed=2.0, epsilon_lower_bound=1.8)["accountant"][0] == "pass"
    assert guards(epsilon_claimed=2.0)["accountant"][1].endswith("attacks prove nothing")


def test_a_bound_that_no_claim_is_about_informs_why():
    said = "no claim covers vantage 'server'"
    found = guards(epsilon_lower_bound=1.8, unclaimed=said)["accountant"]
    assert found == ("info", said)


def test_attacks_without_numbers_are_not_judged():
    skipped = {"name": "s", "vantage": "server", "status": "not_applicable", "reason": "x"}
    found = guards([skipped])
    assert found["label-matched AUC"][0] == found["minimum FPR"][0] == "info"
    assert guards([attack(), skipped]) == guards([attack()])
