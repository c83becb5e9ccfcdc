"""Top-k sends the largest coordinates, and with error feedback nothing is lost for good."""

import numpy as np
import pytest
from changing import context, normal, refusal, sent, vector

from clients.defenses.top_k import TopK


def test_the_largest_coordinates_by_hand():
    found, size = sent(TopK(0.4, whole_below=0), vector(1.0, -5.0, 0.5, 4.0, -2.0))
    assert found["w"].tolist() == [0.0, -5.0, 0.0, 4.0, 0.0]
    assert size == 5 + 1 + 4 * 2  # one byte of a bitmap


def test_the_number_sent_is_rounded_up_and_zeros_are_not_sent():
    found, _ = sent(TopK(0.41, whole_below=0), vector(1.0, -5.0, 0.5, 4.0, -2.0))
    assert np.count_nonzero(found["w"]) == 3
    found, size = sent(TopK(1.0, whole_below=0), vector(0.0, 3.0, 0.0))
    assert found["w"].tolist() == [0.0, 3.0, 0.0]
    assert size == 5 + 1 + 4


def test_of_equal_coordinates_the_first_are_sent():
    found, _ = sent(TopK(0.5, whole_below=0), vector(1.0, 2.0, -1.0, 1.0, 1.0, -1.0))
    assert found["w"].tolist() == [1.0, 2.0, -1.0, 0.0, 0.0, 0.0]


def test_each_layer_has_its_share_or_all_have_one():
    delta = {"big": np.float32([4, 5, 6, 7]), "little": np.float32([0.1, 0.4, 0.3, 0.2])}
    layer, _ = sent(TopK(0.5, "layer", 0), delta)
    assert layer["big"].tolist() == [0, 0, 6, 7]
    assert layer["little"].tolist() == pytest.approx([0, 0.4, 0.3, 0])
    together, _ = sent(TopK(0.5, "global", 0), delta)
    assert together["big"].tolist() == [4, 5, 6, 7]
    assert together["little"].tolist() == [0, 0, 0, 0]


def test_small_arrays_are_sent_whole():
    delta = normal(w=(40, 30), b=30)
    found, size = sent(TopK(0.01, whole_below=31), delta)
    assert np.array_equal(found["b"], delta["b"])
    assert np.count_nonzero(found["w"]) == 12
    assert 4 * (12 + 30) < size <= 4 * (12 + 30) + 5 + 2 * 12
    whole, size = sent(TopK(0.01, whole_below=5000), delta)
    assert all(np.array_equal(whole[k], delta[k]) for k in delta)
    assert size == 5 + 4 * 1230


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_what_was_sent_and_what_is_kept_is_the_sum_of_all_updates(scope):
    mod, where = TopK(0.1, scope, 5), context()
    updates = [normal(t, w=(20, 10), b=4) for t in range(6)]
    arrived = [sent(mod, u, where, t)[0] for t, u in enumerate(updates, 1)]
    for name in ("w", "b"):
        left = where.state["top_k"][name].numpy()
        total = sum(u[name] for u in updates)
        assert sum(a[name] for a in arrived) + left == pytest.approx(total, abs=1e-5)
    assert np.abs(where.state["top_k"]["w"].numpy()).max() > 0
    assert not where.state["top_k"]["b"].numpy().any()


def test_without_error_feedback_nothing_is_kept():
    mod, where = TopK(0.1, error_feedback=False, whole_below=0), context()
    update = normal(w=100)
    first, _ = sent(mod, update, where)
    second, _ = sent(mod, update, where)
    assert np.array_equal(first["w"], second["w"])
    assert not where.state.array_records


def test_a_first_round_can_be_simulated():
    delta = normal(w=(40, 30), b=30)
    simulated = TopK().perturbed({k: v.astype(np.float64) for k, v in delta.items()}, None)
    found, _ = sent(TopK(), delta)
    assert list(simulated) == list(delta)
    assert all(np.array_equal(simulated[k], found[k]) for k in delta)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"share": 0.0}, "share=0.0: expected in (0, 1]"),
        ({"share": 1.1}, "share=1.1: expected in (0, 1]"),
        ({"scope": "row"}, "scope=row: expected layer or global"),
        ({"whole_below": -1}, "whole_below=-1: expected at least 0"),
    ],
)
def test_bad_settings(settings, line):
    assert refusal(TopK, **settings) == line
