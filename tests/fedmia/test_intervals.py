import json

import numpy as np
import pytest
from federations import evaluate, federation, rng
from scipy.special import expit, logit
from scipy.stats import norm

from fedmia.membership import Membership
from fedmia.metrics import tpr_at_fpr


def test_perfect_separation_has_an_interval():
    scores, owner = federation(rng(), targets=2, each=10, held_out=50, signal=100.0)
    result = evaluate(scores, owner)
    assert result["auc"] == 1.0
    assert result["auc_ci"] == [pytest.approx(0.025 ** (1 / 20)), 1.0]
    assert result["per_target"][0]["auc_ci"] == [pytest.approx(0.025 ** (1 / 10)), 1.0]
    reverse = evaluate(-scores, owner)
    assert reverse["auc_ci"] == [0.0, pytest.approx(1 - 0.025 ** (1 / 20))]


@pytest.mark.parametrize(("each", "held_out"), [(1, 1), (1, 5), (2, 1), (3, 2)])
@pytest.mark.parametrize("targets", [1, 2])
def test_very_few_records_still_give_finite_wide_intervals(targets, each, held_out):
    scores, owner = federation(rng(4), targets, each, held_out)
    result = evaluate(scores, owner)
    low, high = result["auc_ci"]
    assert 0 <= low <= result["auc"] <= high <= 1
    assert high - low > 0.3
    json.dumps(result, allow_nan=False)


def test_the_interval_of_one_target_is_delongs():
    scores, owner = federation(rng(7), targets=1, each=40, held_out=60, signal=0.8)
    wins = scores[0, owner == 0][:, None] > scores[0, owner == -1]
    value = wins.mean()
    variance = wins.mean(1).var(ddof=1) / 40 + wins.mean(0).var(ddof=1) / 60
    half = norm.ppf(0.975) * np.sqrt(variance) / (value * (1 - value))
    expected = expit(logit(value) + np.array([-half, half]))
    np.testing.assert_allclose(evaluate(scores, owner)["auc_ci"], expected, atol=0.005)


def test_scoring_the_same_nonmembers_again_adds_no_certainty():
    generator = rng(8)
    one, owner = federation(generator, targets=1, each=400, held_out=25, signal=0.5)
    split = np.where(owner == 0, np.arange(owner.size) % 10, -1)
    once, tenfold = evaluate(one, owner), evaluate(np.repeat(one, 10, axis=0), split)
    assert once["auc"] == pytest.approx(tenfold["auc"])
    assert np.ptp(tenfold["auc_ci"]) > 0.95 * np.ptp(once["auc_ci"])
    assert np.ptp(tenfold["tpr_ci"]["0.1"]) > 0.8 * np.ptp(once["tpr_ci"]["0.1"])


WORLDS = pytest.mark.parametrize(
    "world",
    [{}, {"signal": 1.19}, {"row": 1.0}, {"signal": 1.19, "row_signal": 0.5}],
    ids=["null", "leak", "null, shifted targets", "unequal targets"],
)


def replicate(runs, membership, value, interval, world):
    """Return how often intervals cover the mean of the values, and mean width over ideal width."""
    found = [evaluate(*federation(rng(s), **world), membership=membership) for s in range(runs)]
    values, ends = np.array([value(f) for f in found]), np.array([interval(f) for f in found])
    inside = (ends[:, 0] <= values.mean()) & (values.mean() <= ends[:, 1])
    return inside.mean(), np.ptp(ends, axis=1).mean() / (2 * norm.ppf(0.975) * values.std())


@WORLDS
def test_auc_intervals_cover_the_truth_without_being_wide(world):
    # the ideal width is itself estimated: 300 runs know it to 4%
    covered, width = replicate(
        300, Membership(fprs=[]), lambda f: f["auc"], lambda f: f["auc_ci"], world
    )
    assert covered >= 0.92
    assert 0.9 < width < 1.4


@WORLDS
def test_tpr_intervals_cover_the_truth(world):
    covered, width = replicate(
        100,
        Membership(fprs=[0.1], bootstrap=100),
        lambda f: f["tpr_at_fpr"]["0.1"],
        lambda f: f["tpr_ci"]["0.1"],
        world,
    )
    assert covered >= 0.92
    assert width < 1.8


def test_the_bootstrap_on_sorted_scores_equals_resampling_the_records():
    scores, owner = federation(rng(9), targets=3, each=15, held_out=80, signal=1.0)
    scores = scores.round(1)
    found = evaluate(scores, owner, membership=Membership(bootstrap=4000))["tpr_ci"]["0.1"]
    generator, inside, outside = rng(10), np.arange(45), np.arange(45, 125)
    slow = []
    for _ in range(4000):
        member = generator.choice(inside, 45)
        other = scores[:, generator.choice(outside, 80)].ravel()
        drawn = np.append(scores[owner[member], member], other)
        slow.append(tpr_at_fpr(drawn, np.arange(drawn.size) < 45, 0.1))
    np.testing.assert_allclose(found, np.quantile(slow, [0.025, 0.975]), atol=0.03)
