"""Signs times the mean size, and what they leave out in the next round."""

import numpy as np
import pytest
from changing import context, normal, sent, vector

from clients.defenses.sign_sgd import SignSgd


def test_signs_times_the_mean_size_by_hand():
    delta = {"w": np.float32([[3.0, -1.0], [0.0, 2.0]]), "b": np.float32([-0.5, -0.5])}
    found, size = sent(SignSgd(), delta)
    assert found["w"].tolist() == [[1.5, -1.5], [1.5, 1.5]]
    assert found["b"].tolist() == [-0.5, -0.5]
    assert size == (4 + 1) + (4 + 1)


def test_thirty_two_times_smaller_than_a_model():
    assert sent(SignSgd(), normal(w=(100, 80)))[1] == 4 + 1000


def test_an_update_of_zeros_sends_zeros():
    assert sent(SignSgd(), vector(0.0, 0.0))[0]["w"].tolist() == [0.0, 0.0]


def test_error_feedback_by_hand():
    mod, where = SignSgd(), context()
    first, _ = sent(mod, vector(3.0, -1.0), where)
    assert first["w"].tolist() == [2.0, -2.0]  # 1 and 1 are left
    second, _ = sent(mod, vector(0.0, -2.0), where)
    assert second["w"].tolist() == [1.0, -1.0]  # of 1 and -1
    assert not where.state["sign_sgd"]["w"].numpy().any()


def test_what_was_sent_and_what_is_kept_is_the_sum_of_all_updates():
    mod, where = SignSgd(), context()
    updates = [normal(t, w=(20, 10)) for t in range(6)]
    arrived = sum(sent(mod, u, where, t)[0]["w"] for t, u in enumerate(updates, 1))
    left = where.state["sign_sgd"]["w"].numpy()
    assert arrived + left == pytest.approx(sum(u["w"] for u in updates), abs=1e-5)


def test_without_error_feedback_nothing_is_kept():
    where = context()
    first, _ = sent(SignSgd(False), vector(3.0, -1.0), where)
    second, _ = sent(SignSgd(False), vector(3.0, -1.0), where)
    assert first["w"].tolist() == second["w"].tolist() == [2.0, -2.0]
    assert not where.state.array_records


def test_a_first_round_can_be_simulated():
    delta = normal(w=(40, 30))
    simulated = SignSgd().perturbed(delta, None)
    assert np.array_equal(simulated["w"], sent(SignSgd(), delta)[0]["w"])
