"""LiRA: scores worked out by hand and by a naive loop, and what it refuses."""

from statistics import NormalDist, median

import numpy as np
import pytest
from reference_world import NODES, World

from fedmia.attacks.base import NotApplicableError
from fedmia.attacks.lira import LiRA, _moved
from fedmia.attacks.reference_models import Panel
from fedmia.errors import ConfigError
from fedmia.metrics import auc
from fedmia.records import Examples


def panel(gap, gaps, held=None):
    gaps = np.array(gaps, dtype=np.float64)
    held = np.zeros(gaps.shape, bool) if held is None else np.array(held, bool)
    return Panel(np.array(gap, dtype=np.float64), gaps, held)


def test_the_one_sided_score_worked_out_by_hand():
    # record 0: median 2, mean 2, scatter 1 + 0 + 1; record 1: median 10, mean 10, 9 + 0 + 9
    seen = panel([4.0, 7.0], [[1, 7], [2, 10], [3, 13]])

    pooled = LiRA("clients")._evidence(seen)
    own = LiRA("clients", variance="per_example")._evidence(seen)

    assert pooled == pytest.approx([2 / 5**0.5, -3 / 5**0.5], abs=1e-12)  # σ² = 20 / 4
    assert own == pytest.approx([2, -1], abs=1e-12)  # σ = 1 and 3


def test_the_two_sided_score_takes_an_unusually_bad_fit_for_a_member():
    seen = panel([4.0, 0.0, 2.0], [[1, 1, 1], [2, 2, 2], [3, 3, 3]])

    two = LiRA(sided="two")._evidence(seen)

    assert two[0] == pytest.approx(-np.log(NormalDist(2, 1).pdf(4)), abs=1e-12)
    assert two[1] == pytest.approx(two[0], abs=1e-12)
    assert two[2] < two[0]


def test_online_worked_out_by_hand():
    # in: 4 and 6, out: 0 and 2; squares about their means: 1 + 1, freedom 1
    seen = panel([5.0, 3.0], [[4, 4], [0, 0], [6, 6], [2, 2]], [[1, 1], [0, 0], [1, 1], [0, 0]])

    score = LiRA("online")._evidence(seen)

    # ((φ − 1)² − (φ − 5)²) / (2 · 2)
    assert score == pytest.approx([4.0, 0.0], abs=1e-12)


def test_online_a_record_that_no_model_held_gets_the_mean_shift_of_the_others():
    gaps = [[4, 10], [0, 12], [6, 10], [2, 12]]
    held = [[1, 0], [0, 0], [1, 0], [0, 0]]

    score = LiRA("online")._evidence(panel([5.0, 15.0], gaps, held))

    # record 1: μ_out 11, μ_in 11 + (5 − 1); σ² in: 2 / 1, out: (2 + 4) / (1 + 3)
    inside, outside = NormalDist(15, 2**0.5), NormalDist(11, 1.5**0.5)
    assert score[1] == pytest.approx(np.log(inside.pdf(15) / outside.pdf(15)), abs=1e-9)


def naive(gap, gaps, held, online, per_example):
    """Return what the paper's algorithm gives, a record at a time."""
    n, total = len(gap), {}
    for j in range(n):
        for side in (True, False):
            total[j, side] = [g[j] for g, h in zip(gaps, held, strict=True) if h[j] == side]

    def square(j, side):
        values = total[j, side]
        return sum((v - sum(values) / len(values)) ** 2 for v in values)

    def sigma(j, side):
        if per_example:
            return (square(j, side) / (len(total[j, side]) - 1)) ** 0.5
        freedom = sum(len(total[i, side]) - 1 for i in range(n))
        return (sum(square(i, side) for i in range(n)) / freedom) ** 0.5

    scores = []
    for j in range(n):
        outside = NormalDist(median(total[j, False]), sigma(j, False))
        if online:
            inside = NormalDist(median(total[j, True]), sigma(j, True))
            scores.append(np.log(inside.pdf(gap[j])) - np.log(outside.pdf(gap[j])))
        else:
            scores.append((gap[j] - outside.mean) / outside.stdev)
    return scores


@pytest.mark.parametrize("variance", ["pooled", "per_example"])
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_the_fast_score_is_the_naive_one(mode, variance):
    rng = np.random.default_rng(0)
    gaps, gap = rng.normal(0, 2, (17, 40)), rng.normal(1, 2, 40)
    held = rng.permuted(np.arange(17)[:, None] < np.full(40, 8), axis=0)
    if mode == "offline":
        held[:] = False

    fast = LiRA(mode, variance=variance)._evidence(panel(gap, gaps, held))

    slow = naive(gap, gaps, held, mode == "online", variance == "per_example")
    assert fast == pytest.approx(slow, abs=1e-9)


def test_online_is_the_best_and_two_sided_offline_the_worst():
    """The in-models say how far to expect a member; two-sided takes bad fits for members."""
    world = World(leak=1.5, models=32)
    online, offline, two = (
        world.auc(world.score(attack), None)
        for attack in (LiRA("online"), LiRA(), LiRA(sided="two"))
    )

    assert online > offline - 0.01
    assert offline > two + 0.1


def test_rounds_are_averaged_or_the_last_is_taken():
    world = World()
    seen = world.view.signals
    by_round = []
    for t in range(len(seen.present)):
        gaps = seen.logit_gap_local[t]
        by_round.append(LiRA("clients")._evidence(panel(gaps[0], gaps[1:])))

    assert world.score(LiRA("clients")) == pytest.approx(np.mean(by_round, axis=0))
    assert world.score(LiRA("clients", rounds="last")) == pytest.approx(by_round[-1])
    assert world.auc(np.mean(by_round, axis=0)) > world.auc(by_round[-1])


@pytest.mark.parametrize(
    ("attack", "models", "line"),
    [
        (LiRA(variance="per_example"), 7, "needs 8 reference models, has 7"),
        (LiRA("online", variance="per_example"), 15, "needs 16 reference models, has 15"),
        (LiRA(), 1, "needs 2 reference models, has 1"),
        (
            LiRA("clients", variance="per_example"),
            0,
            "needs a round with the target and 8 other clients",
        ),
    ],
)
def test_too_few_models_for_the_variance_are_refused_before_any_is_asked(attack, models, line):
    world = World(models=models)

    with pytest.raises(NotApplicableError) as refusal:
        world.score(attack)

    assert str(refusal.value) == line
    assert not any(name.startswith("federation ") for name in world.noise)


def held_by(number, models=20):
    """Return who holds which of three records: so many models the second, ten the others."""
    return np.arange(models)[:, None] < [10, number, 10]


@pytest.mark.parametrize(
    ("attack", "number", "line"),
    [
        (
            LiRA("online", variance="per_example"),
            7,
            "needs 8 reference models that hold each record, some have 7",
        ),
        (
            LiRA("online", variance="per_example"),
            13,
            "needs 8 reference models without each record, some have 7",
        ),
        (LiRA("online"), 19, "needs 2 reference models without each record, some have 1"),
        (
            LiRA(variance="per_example"),
            13,
            "needs 8 reference models without each record, some have 7",
        ),
    ],
)
def test_models_are_counted_record_by_record_with_it_and_without_it(attack, number, line):
    with pytest.raises(NotApplicableError) as refusal:
        attack._check_enough(held_by(number))

    assert str(refusal.value) == line
    attack._check_enough(held_by(8 if number < 8 else 12))


def test_too_few_models_that_hold_a_record_are_told_by_the_attack_itself():
    world, attack = World(), LiRA("online", variance="per_example")
    strange = Examples(world.candidates.x.copy(), world.candidates.y)
    strange.x[5, 0] += 0.5  # a record that no model was trained on

    with pytest.raises(NotApplicableError, match=r"that hold each record, some have 0$"):
        world.score(attack, candidates=strange)


def test_online_without_a_record_that_was_held_is_not_possible():
    with pytest.raises(NotApplicableError, match=r"^needs reference models that hold records in"):
        LiRA("online")._check_enough(np.zeros((4, 3), bool))


def test_few_models_that_hold_a_record_are_not_taken_at_face_value():
    """Worked out by hand: v is the error of d, τ² what is left of the spread of d without it."""
    # each record in two models and out of two; d = 4, 8 and 12
    gaps = [[4, 8, 12], [6, 10, 14], [0, 0, 0], [2, 2, 2]]
    held = [[1] * 3, [1] * 3, [0] * 3, [0] * 3]

    score = LiRA("online")._evidence(panel([6.0, 6.0, 6.0], gaps, held))

    # σ_in² = σ_out² = 2, v = 2/2 + 2/2; τ² = (16 + 0 + 16) / 3 − 2 = 26/3; w = 26/32
    inside = 1 + 8 + 26 / 32 * np.array([-4, 0, 4])
    assert score == pytest.approx(((6 - 1) ** 2 - (6 - inside) ** 2) / 4, abs=1e-12)


def test_shifts_that_differ_by_no_more_than_their_error_are_one():
    gaps = [[4.0, 4.1], [6.0, 6.1], [0.0, 0.0], [2.0, 2.0]]
    held = [[1, 1], [1, 1], [0, 0], [0, 0]]

    score = LiRA("online")._evidence(panel([5.0, 5.0], gaps, held))

    assert score == pytest.approx([((5 - 1) ** 2 - (5 - 5.05) ** 2) / 4] * 2, abs=1e-12)


def test_drawing_few_models_to_the_mean_finds_more():
    rng = np.random.default_rng(0)
    n, out, inside = 4000, 14, 2
    shift, ease = rng.normal(3, 1, n), rng.normal(0, 3, n)
    member = np.arange(n) < n // 2
    held = np.arange(out + inside)[:, None] < np.full(n, inside)
    gaps = ease + held * shift + rng.normal(0, 3, held.shape)
    gap = ease + member * shift + rng.normal(0, 3, n)
    attack = LiRA("online")
    mu_in, var_in = attack._normal(gaps, held)
    mu_out, var_out = attack._normal(gaps, ~held)
    plain = (gap - mu_out) ** 2 / var_out - (gap - mu_in) ** 2 / var_in

    drawn = attack._evidence(panel(gap, gaps, held))

    assert auc(drawn, member) > auc(plain, member) + 0.03


@pytest.mark.parametrize(
    ("attack", "least"),
    [
        (LiRA("online", variance="per_example"), 44),  # 8 / (200 / 1,100)
        (LiRA("online", "local", variance="per_example"), 440),
        (LiRA("online"), 4),
        (LiRA(variance="per_example"), 8),
        (LiRA(), 2),
        (LiRA("clients", variance="per_example"), 0),
    ],
    ids=repr,
)
def test_how_many_models_it_takes_follows_from_who_holds_what(attack, least):
    assert attack.shadows_needed(200 / 1100, 20 / 1100) == least


def test_an_image_is_moved_by_a_pixel_and_flipped():
    x = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)

    assert _moved(x, (0, 0), False).tolist() == x.tolist()
    assert _moved(x, (0, 0), True)[0, 0].tolist() == [[2, 1, 0], [5, 4, 3], [8, 7, 6]]
    assert _moved(x, (1, 0), False)[0, 0].tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5]]
    assert _moved(x, (0, -1), False)[0, 0].tolist() == [[1, 2, 2], [4, 5, 5], [7, 8, 8]]


def test_queries_of_an_image_are_different_and_start_with_the_image():
    x = np.random.default_rng(0).random((2, 1, 8, 8)).astype(np.float32)
    views = LiRA(queries=18)._views(Examples(x, np.zeros(2, np.int64)), World().knowledge)

    assert np.array_equal(views[0].x, x)
    assert len({v.x.tobytes() for v in views}) == 18
    assert {v.x.shape for v in views} == {x.shape}


def test_queries_are_averaged_and_their_noise_does_not_depend_on_the_position():
    world = World()
    attack = LiRA(queries=4, query_noise=0.05)
    views = attack._views(world.candidates, world.knowledge)
    reversed_ = attack._views(world.candidates[::-1], world.knowledge)

    by_query = []
    for view in views:
        seen = world.view.signals.of(view)
        by_query += [attack.panels(world.view, NODES[0], seen, view, world.knowledge)]
    expected = np.mean([attack._evidence(p) for (p,) in by_query], axis=0)

    assert np.std(views[1].x - views[0].x) < 0.2
    assert not np.array_equal(views[1].x, views[2].x)
    for straight, back in zip(views, reversed_, strict=True):
        assert np.array_equal(straight.x, back.x[::-1])
    assert world.score(attack) == pytest.approx(expected)


def test_online_a_view_counts_as_held_where_the_record_is():
    """No model was trained on a view's own bytes."""
    world, attack = World(), LiRA("online", queries=2, query_noise=0.05)
    view = attack._views(world.candidates, world.knowledge)[1]
    models = world.knowledge.shadows.federations(online=True)

    assert not models.held(view).any()
    found, plain = (world.auc(world.score(a), None) for a in (attack, LiRA("online")))
    assert found > plain - 0.01


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"sided": "three"}, "sided=three: expected one or two"),
        ({"variance": "none"}, "variance=none: expected pooled or per_example"),
        ({"queries": 0}, "queries=0: expected in [1, 18]"),
        ({"queries": 19}, "queries=19: expected in [1, 18]"),
        ({"query_noise": 0.0}, "query_noise=0.0: expected more than 0"),
    ],
)
def test_settings_that_do_not_exist_are_refused(settings, line):
    with pytest.raises(ConfigError) as refusal:
        LiRA(**settings)
    assert str(refusal.value) == line
