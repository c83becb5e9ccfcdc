import numpy as np
import pytest
from central_rounds import clipped, flat, model_of, moved

from strategies.clipped_sum import ClippedSum


def total(updates, clip, weights=None, per_layer=False):
    size = len(updates[0])
    model = model_of(size)
    sums = ClippedSum(model, clip, len(updates), per_layer)
    weights = weights or [1.0] * len(updates)
    within = [sums.add(moved(model, u), w) for u, w in zip(updates, weights, strict=True)]
    return sums, within


def test_two_updates_by_hand():
    sums, within = total([np.array([3.0, 4.0]), np.array([0.0, 0.5])], 1.0)
    np.testing.assert_allclose(sums.total, [0.6, 1.3], atol=1e-6)
    assert within == [False, True]


def test_weights_multiply_what_is_clipped():
    sums, _ = total([np.array([3.0, 4.0]), np.array([0.0, 0.5])], 1.0, [0.5, 0.25])
    np.testing.assert_allclose(sums.total, [0.3, 0.525], atol=1e-6)


def test_each_array_is_clipped_on_its_own_to_clip_over_the_root_of_their_number():
    updates = [np.array([3.0, 0.0, 0.0, 0.1]), np.array([0.0, 0.0, 0.3, 0.4])]
    sums, within = total(updates, 0.5, per_layer=True)
    each = 0.5 / np.sqrt(2)
    scaled = each / 0.5
    np.testing.assert_allclose(sums.total, [each, 0, 0.3 * scaled, 0.1 + 0.4 * scaled], atol=1e-6)
    assert within == [False, False]


def test_agrees_with_a_loop():
    rng = np.random.default_rng(0)
    updates = [rng.normal(size=301) * 10.0 ** rng.uniform(-3, 1) for _ in range(40)]
    sums, within = total(updates, 1.0)
    np.testing.assert_allclose(sums.total, sum(clipped(u, 1.0) for u in updates), atol=2e-5)
    assert within == [np.linalg.norm(u) <= 1 for u in updates]
    assert 0 < sum(within) < 40


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("clip", [1e-3, 1.0, 1e3])
def test_one_client_more_moves_the_sum_by_at_most_the_clip(clip, per_layer):
    rng = np.random.default_rng(1)
    direction = rng.normal(size=4001)
    for scale in (1.0, 1 + 1e-7, 1e-4, 1e4, 1e18):
        others = [rng.normal(size=4001) * clip for _ in range(9)]
        mine = direction / np.linalg.norm(direction) * clip * scale
        model = model_of(4001)
        sums = ClippedSum(model, clip, 10, per_layer)
        for update in others:
            sums.add(moved(model, update))
        without = sums.total.astype(np.float64)
        sums.add(moved(model, mine))
        change = np.linalg.norm(sums.total - without)
        assert change <= clip
        if scale >= 1 and not per_layer:
            assert change > 0.999 * clip


def test_an_infinite_bound_leaves_updates_as_they_are():
    sums, within = total([np.array([3.0, 4.0])], np.inf)
    np.testing.assert_array_equal(sums.total, [3, 4])
    assert within == [True]


def test_an_update_of_zero_adds_nothing_and_is_within():
    sums, within = total([np.zeros(4)], 1.0)
    np.testing.assert_array_equal(sums.total, 0)
    assert within == [True]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_and_leaves_the_sum(bad):
    model = model_of(4)
    sums = ClippedSum(model, 1.0, 2)
    sums.add(moved(model, np.full(4, 0.1)))
    with pytest.raises(ArithmeticError, match="not finite"):
        sums.add(moved(model, np.array([0.1, bad, 0.1, 0.1])))
    np.testing.assert_allclose(sums.total, 0.1, rtol=1e-6)


def test_the_model_moves_in_its_own_types_and_counters_are_left_out():
    model = {"a": np.ones((2, 1), np.float64), "n": np.array(3), "b": np.array(1, np.float16)}
    sums = ClippedSum(model, 1.0, 1)
    after = sums.moved(np.array([0.5, -0.5, 0.25], np.float32))
    assert {k: (v.dtype, v.shape) for k, v in after.items()} == {
        "a": (np.float64, (2, 1)),
        "b": (np.float16, ()),
    }
    np.testing.assert_array_equal(flat(after), [1.5, 0.5, 1.25])
