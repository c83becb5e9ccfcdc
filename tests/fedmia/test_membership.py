import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from federations import evaluate, federation, naive_auc, rng
from scipy.stats import norm

from fedmia.errors import ConfigError
from fedmia.membership import Membership
from fedmia.metrics import tpr_at_fpr


def test_a_planted_leak_is_found_and_the_report_is_plain_json():
    scores, owner = federation(rng(), signal=1.5, held_out=300)
    result = evaluate(scores, owner)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    truth = norm.cdf(1.5 / np.sqrt(2))
    assert result["auc_ci"][0] < truth < result["auc_ci"][1]
    assert result["auc_ci"][0] > 0.5
    assert result["tpr_at_fpr"]["0.001"] is None
    assert result["tpr_ci"]["0.001"] is None
    low, high = result["tpr_ci"]["0.1"]
    assert low < result["tpr_at_fpr"]["0.1"] < high
    assert result["advantage"] == pytest.approx(2 * result["balanced_accuracy"] - 1)
    assert len(result["per_target"]) == 10
    means = [target["auc"] for target in result["per_target"]]
    assert result["auc_target_mean"] == pytest.approx(np.mean(means))


def test_the_pooled_numbers_are_those_of_the_pooled_pairs():
    scores, owner = federation(rng(1), targets=3, each=5, held_out=40, signal=1.0)
    scores = scores.round(1)
    inside = np.concatenate([scores[k, owner == k] for k in range(3)])
    outside = scores[:, owner == -1].ravel()
    flat, members = np.append(inside, outside), np.arange(15 + 120) < 15
    result = evaluate(scores, owner)
    assert result["auc"] == pytest.approx(naive_auc(flat, members), abs=1e-12)
    assert result["tpr_at_fpr"]["0.1"] == tpr_at_fpr(flat, members, 0.1)
    others = np.concatenate([scores[k, (owner >= 0) & (owner != k)] for k in range(3)])
    flat, members = np.append(inside, others), np.arange(15 + 30) < 15
    assert result["other_members"]["auc"] == pytest.approx(naive_auc(flat, members), abs=1e-12)
    row = np.append(scores[1, owner == 1], scores[1, owner == -1])
    assert result["per_target"][1]["auc"] == pytest.approx(naive_auc(row, np.arange(45) < 5))


def test_members_of_others_and_left_out_records_never_reach_the_headline():
    scores, owner = federation(rng(2), targets=4, each=10, held_out=100, signal=1.0)
    owner[-20:] = -2
    changed = scores.copy()
    changed[:, owner == -2] += 100
    changed[(owner >= 0) & (owner != np.arange(4)[:, None])] += 100
    before, after = evaluate(scores, owner), evaluate(changed, owner)
    assert after.pop("other_members")["auc"] == 0.0
    assert before.pop("other_members")["auc"] > 0.6
    assert after.pop("source_accuracy") == 0.0
    assert before.pop("source_accuracy") > 0.4
    assert before.pop("source_accuracy_ci") != after.pop("source_accuracy_ci")
    assert before == after


def test_the_number_of_distinct_nonmembers_sets_the_resolution():
    scores, owner = federation(rng(3), targets=10, held_out=99, signal=1.0)
    result = evaluate(scores, owner)  # 990 pairs, 99 records
    assert result["tpr_at_fpr"]["0.1"] is not None
    assert result["tpr_at_fpr"]["0.01"] is None


def test_labels_are_matched_within_a_target():
    # each target's score is its own label prior: matched across targets it would still win
    owner = np.append(np.repeat([0, 1], 10), np.full(40, -1))
    labels = np.concatenate([[0] * 9 + [1], [1] * 9 + [0], np.arange(40) % 2])
    scores = np.stack([labels == 0, labels == 1]).astype(float)
    result = evaluate(scores, owner, labels)
    assert result["auc"] == pytest.approx(0.7)
    assert result["auc_label_matched"] == 0.5


def test_equal_scores_are_worth_exactly_nothing():
    _, owner = federation(rng(), held_out=1000)
    result = evaluate(np.zeros((10, owner.size)), owner)
    assert (result["auc"], result["auc_ci"]) == (0.5, [0.5, 0.5])
    assert result["balanced_accuracy"] == 0.5
    assert set(result["tpr_at_fpr"].values()) == {0.0}
    assert result["tpr_ci"]["0.001"][1] == pytest.approx(1 - 0.025 ** (1 / 200))


def test_one_target_alone_has_no_other_members_and_no_source():
    scores, owner = federation(rng(5), targets=1)
    result = evaluate(scores, owner)
    assert result["other_members"] is None
    for field in ("source_accuracy", "source_accuracy_ci", "source_chance"):
        assert result[field] is None


def test_an_achieved_rate_is_close_to_the_nominal_one_and_is_not_fitted_to_its_judges():
    scores, owner = federation(rng(7), targets=2, held_out=4000, signal=1.0)
    result = evaluate(scores, owner)
    assert result["achieved_fpr"]["0.1"] == pytest.approx(0.1, abs=0.01)
    assert result["achieved_fpr"]["0.01"] == pytest.approx(0.01, abs=0.004)
    assert result["achieved_fpr"]["0.001"] is not None
    assert result["achieved_tpr"]["0.1"] == pytest.approx(result["tpr_at_fpr"]["0.1"], abs=0.05)
    assert result["min_fpr"] == 1 / 4000


def test_a_threshold_is_not_judged_by_the_records_that_set_it():
    # 30 records at a nominal 10%: half of them leave (1 + 1)/(15 + 1) of the others above
    found = []
    for seed in range(100):
        scores, owner = federation(rng(seed), targets=1, held_out=30)
        found.append(evaluate(scores, owner)["achieved_fpr"]["0.1"])
    assert np.mean(found) == pytest.approx(0.125, abs=0.01)


def test_half_of_the_nonmembers_sets_the_resolution_of_a_calibrated_threshold():
    scores, owner = federation(rng(3), held_out=100, signal=1.0)
    result = evaluate(scores, owner)
    assert result["tpr_at_fpr"]["0.01"] is not None
    assert result["achieved_fpr"]["0.01"] is None
    assert set(result["ppv"].values()) == {None}


def test_precision_follows_the_prior_and_never_a_rate_below_resolution():
    scores, owner = federation(rng(8), targets=2, held_out=400, signal=8.0)
    perfect = evaluate(scores, owner)
    assert (perfect["achieved_fpr"]["0.01"], perfect["achieved_tpr"]["0.01"]) == (
        pytest.approx(0.01, abs=0.005),
        1.0,
    )
    assert perfect["ppv"]["0.5"] < 1.0
    assert perfect["ppv"]["0.01"] < perfect["ppv"]["0.1"] < perfect["ppv"]["0.5"]
    _, owner = federation(rng(), held_out=400)
    assert evaluate(np.zeros((10, owner.size)), owner)["ppv"]["0.1"] == 0.0


def test_the_source_is_in_the_report_with_chance_beside_it():
    scores, owner = federation(rng(9), targets=5, each=40, signal=2.0)
    result = evaluate(scores, owner)
    low, high = result["source_accuracy_ci"]
    assert 0.2 < low < result["source_accuracy"] < high
    assert result["source_chance"] == 0.2
    null, owner = federation(rng(10), targets=5, each=200)
    low, high = evaluate(null, owner)["source_accuracy_ci"]
    assert low < 0.2 < high


def test_a_target_without_members_is_left_out():
    scores, owner = federation(rng(6), targets=3, signal=1.0)
    owner[owner == 1] = -2
    result = evaluate(scores, owner)
    assert result["per_target"][1] == {
        "auc": None,
        "auc_ci": None,
        "tpr_at_fpr": {"0.1": None, "0.01": None, "0.001": None},
    }
    kept = np.delete(scores, 1, axis=0), np.where(owner == 2, 1, owner)
    assert result["auc"] == evaluate(*kept)["auc"]


def test_the_same_generator_gives_the_same_report():
    scores, owner = federation(rng(11), signal=0.5)
    assert evaluate(scores, owner, seed=3) == evaluate(scores, owner, seed=3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fprs": [0.1, 0.0]}, r"fprs=\[0.1, 0.0\]: expected"),
        ({"fprs": [1.1]}, "fprs="),
        ({"confidence": 1.0}, r"confidence=1.0: expected in \(0, 1\)"),
        ({"bootstrap": 99}, "bootstrap=99: expected at least 100"),
    ],
)
def test_settings_out_of_range_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Membership(**fields)


def test_the_yaml_holds_every_field_at_its_default():
    path = Path(__file__).parents[2] / "conf" / "metrics" / "membership.yaml"
    option = yaml.safe_load(path.read_text())
    assert option.pop("_target_") == "fedmia.membership.Membership"
    assert option == vars(Membership())
