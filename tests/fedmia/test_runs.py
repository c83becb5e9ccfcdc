import numpy as np
import pytest
from federations import federation, rng
from scipy.stats import t as student

from fedmia.metrics import auc, tpr_at_fpr
from fedmia.pairs import pair
from fedmia.runs import Rate, Run, area, hierarchical_interval, paired_difference


def runs(seed, number, signal=1.0, spread=0.0, **size):
    g = rng(seed)
    size = {"targets": 2, "each": 15, "held_out": 60} | size
    return [Run(*federation(g, signal=signal + spread * g.normal(), **size)) for _ in range(number)]


# statistics under weights


@pytest.mark.parametrize("statistic", [area, Rate(0.2)], ids=["auc", "tpr"])
def test_weights_count_records_as_often_as_they_say(statistic):
    scores, owner = federation(rng(1), targets=2, each=6, held_out=20, signal=1.0)
    scores = scores.round(1)
    pairs = pair(scores, owner)
    weights = rng(2).integers(0, 4, size=(5, owner.size))
    weights[0] = 1
    found = statistic(pairs, weights)
    for w, value in zip(weights, found, strict=True):
        times = w[pairs.record_index]
        s, m = np.repeat(pairs.scores, times), np.repeat(pairs.members, times)
        expected = auc(s, m) if statistic is area else tpr_at_fpr(s, m, 0.2)
        assert value == pytest.approx(expected, abs=1e-12)


def test_a_rate_that_a_run_cannot_resolve_is_refused():
    with pytest.raises(ValueError, match=r"fpr=0.01: expected ≥ 1/60"):
        hierarchical_interval(runs(0, 2), Rate(0.01), 0.95, 100, rng())


# one configuration


def test_the_mean_is_that_of_the_runs():
    some = runs(3, 4)
    values = [auc(p.scores, p.members) for p in (pair(*run) for run in some)]
    found = hierarchical_interval(some, area, 0.95, 200, rng())
    assert found.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert found.low < found.mean < found.high
    assert found == hierarchical_interval(some, area, 0.95, 200, rng())
    rates = [pair(*run).rates([0.1])[0] for run in some]
    found = hierarchical_interval(some, Rate(0.1), 0.95, 200, rng())
    assert found.mean == pytest.approx(np.mean(rates), abs=1e-12)
    assert 0 <= found.low < found.mean < found.high <= 1


def drift(pairs, weights):
    """Mean score of members: a statistic whose truth is plain and whose resamples are cheap."""
    w = weights[:, pairs.record_index[pairs.members]]
    return w @ pairs.scores[pairs.members] / w.sum(axis=1)


@pytest.mark.parametrize("number", [3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.2, 1.0])
def test_intervals_cover_the_mean_over_seeds(number, spread):
    # records alone spread a run's mean by 0.2: seeds add nothing, as much, or most of the variance
    inside, widths, values = [], [], []
    for seed in range(100):
        some = runs(seed, number, 0.0, spread, targets=1, each=25, held_out=1)
        moved = [Run(0.1 * run.scores + 0.5, run.owner) for run in some]
        found = hierarchical_interval(moved, drift, 0.95, 200, rng(seed))
        inside.append(found.low <= 0.5 <= found.high)
        widths.append(found.high - found.low)
        values.append(found.mean)
    assert np.mean(inside) >= 0.92
    assert np.mean(widths) < 1.6 * 2 * student.ppf(0.975, number - 1) * np.std(values)


def test_more_runs_make_a_mean_surer_and_two_say_next_to_nothing():
    widths = {
        number: np.mean(
            [
                np.diff(hierarchical_interval(runs(s, number), area, 0.95, 200, rng(s))[1:])
                for s in range(6)
            ]
        )
        for number in (2, 3, 8)
    }
    assert widths[2] > 2 * widths[3] > 4 * widths[8]


def test_runs_that_all_separate_perfectly_have_the_interval_of_their_records():
    some = runs(0, 3, signal=100.0)
    found = hierarchical_interval(some, area, 0.95, 100, rng())
    assert found == pytest.approx((1.0, 0.025 ** (1 / 90), 1.0))


@pytest.mark.parametrize("number", [0, 1])
def test_a_single_run_does_not_say_how_seeds_differ(number):
    with pytest.raises(ValueError, match=f"{number} run: expected at least 2"):
        hierarchical_interval(runs(0, number), area, 0.95, 100, rng())
    with pytest.raises(ValueError, match="draws=99: expected at least 100"):
        hierarchical_interval(runs(0, 2), area, 0.95, 99, rng())


# two configurations


def defended(run, loss, g):
    """Return the run with so much less signal and some noise of its own."""
    scores, owner = np.asarray(run.scores), np.asarray(run.owner)
    member = owner == np.arange(len(scores))[:, None]
    return Run(scores - loss * member + 0.1 * g.normal(size=scores.shape), owner)


def sides(seed, number, loss):
    first = dict(enumerate(runs(seed, number, spread=0.5)))
    g = rng(seed + 10_000)
    return first, {s: defended(run, loss, g) for s, run in first.items()}


def test_a_difference_on_the_same_seeds_is_surer_than_either_side():
    first, second = sides(1, 5, 0.5)
    found = paired_difference(first, second, area, 0.95, 300, rng())
    alone = hierarchical_interval(list(first.values()), area, 0.95, 300, rng())
    other = hierarchical_interval(list(second.values()), area, 0.95, 300, rng())
    assert found.mean == pytest.approx(alone.mean - other.mean)
    assert 0 < found.low < found.mean < found.high
    assert found.high - found.low < 0.5 * (alone.high - alone.low)
    back = paired_difference(second, first, area, 0.95, 300, rng())
    assert back.mean == -found.mean


def test_no_difference_is_rarely_found():
    found = [paired_difference(*sides(s, 3, 0.0), area, 0.95, 150, rng(s)) for s in range(60)]
    assert np.mean([f.low <= 0 <= f.high for f in found]) >= 0.92


def test_a_configuration_does_not_differ_from_itself_by_more_than_records_exclude():
    first, _ = sides(1, 3, 0.0)
    found = paired_difference(first, first, area, 0.95, 100, rng())
    unsure = 1 - 0.025 ** (1 / 90)
    assert found == pytest.approx((0.0, -unsure, unsure))


def test_seeds_and_records_have_to_match():
    first, second = sides(1, 3, 0.5)
    fewer = {s: run for s, run in second.items() if s}
    with pytest.raises(ValueError, match=r"seeds \[0, 1, 2\] and \[1, 2\]: expected the same"):
        paired_difference(first, fewer, area, 0.95, 100, rng())
    moved = second | {1: Run(second[1].scores, np.roll(second[1].owner, 1))}
    with pytest.raises(ValueError, match="seed 1: expected the same records"):
        paired_difference(first, moved, area, 0.95, 100, rng())
