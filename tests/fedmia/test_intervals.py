import json

import numpy as np
import pytest
from federations import evaluate, federation, rng
from scipy.special import expit, logit
from scipy.stats import norm

from fedmia import intervals
from fedmia.intervals import rate_intervals, resampled_records, weighted_rates
from fedmia.membership import Membership
from fedmia.metrics import tpr_at_fpr
from fedmia.pairs import pair


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


@pytest.mark.parametrize("chunk", [1, 4_000_000])
@pytest.mark.parametrize("digits", [8, 1, -9], ids=["untied", "ties", "all equal"])
@pytest.mark.parametrize("fprs", [[0.05], [0.5, 0.1, 1.0]])
def test_weights_of_records_and_rows_count_pairs_as_often_as_they_say(
    fprs, digits, chunk, monkeypatch
):
    monkeypatch.setattr(intervals, "_CHUNK", chunk)
    scores, owner = federation(rng(12), targets=4, each=6, held_out=70, signal=1.0)
    pairs = pair(scores.round(digits), owner)
    of_record = rng(13).integers(0, 4, size=(6, owner.size))
    of_row = rng(14).integers(1, 4, size=(6, 4)).astype(np.uint8)
    # far down the order: the threshold is not among the first
    best = scores[:, owner == -1].max(axis=0)
    of_record[0, owner == -1] = 200 * (best <= np.sort(best)[9])
    records = np.asarray(of_record, dtype=np.uint8, order="F")
    for rows in (of_row, None):
        found = weighted_rates(pairs, fprs, records, rows)
        for w, r, values in zip(of_record, of_row, found, strict=True):
            times = w[pairs.record_index] * (r[pairs.row_index] if rows is not None else 1)
            s, m = np.repeat(pairs.scores, times), np.repeat(pairs.members, times)
            assert values.tolist() == pytest.approx([tpr_at_fpr(s, m, f) for f in fprs], abs=1e-12)


def test_rows_that_meet_different_nonmembers_are_refused():
    pairs = pair(*federation(rng(), targets=2, each=5, held_out=20))
    fewer = pairs.only(np.arange(pairs.scores.size) > 5)
    with pytest.raises(ValueError, match="39 pairs of non-members: expected the same in every row"):
        weighted_rates(fewer, [0.5], np.ones((3, 29), dtype=np.uint8))


def test_a_resample_draws_as_many_of_each_kind_as_there_are():
    is_member = rng(15).random(500) < 0.2
    drawn = resampled_records(is_member, 400, rng(16))
    assert drawn.shape == (400, 500)
    assert set(drawn[:, is_member].sum(axis=1)) == {is_member.sum()}
    assert set(drawn[:, ~is_member].sum(axis=1)) == {(~is_member).sum()}
    # each count is nearly Poisson with mean 1
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=5 / np.sqrt(400))
    assert drawn.var() == pytest.approx(1, abs=0.03)
    assert (drawn == 0).mean() == pytest.approx(np.exp(-1), abs=0.01)


def test_generators_in_the_same_state_draw_the_same_records_for_every_attack():
    scores, owner = federation(rng(17), each=15, held_out=100, signal=1.0)
    first, monotone = pair(scores, owner), pair(np.exp(scores), owner)
    found = rate_intervals(first, [0.1], 0.95, 200, rng(1))
    rate_intervals(pair(*federation(rng(18), targets=2)), [0.1], 0.95, 200, rng(1))
    assert rate_intervals(monotone, [0.1], 0.95, 200, rng(1)) == found
    assert rate_intervals(first, [0.1], 0.95, 200, rng(2)) != found
