import numpy as np
import pytest

from fedmia.report.pooling import Pooled, difference, pool, read_scores
from fedmia.runs import Run


def test_one_seed_keeps_its_own_interval() -> None:
    assert pool([0.8], [0.7, 0.9]) == Pooled(0.8, 0.7, 0.9, "run")


def test_two_seeds_show_the_smaller_and_the_larger() -> None:
    assert pool([0.8, 0.6], [0.0, 1.0]) == Pooled(pytest.approx(0.7), 0.6, 0.8, "range")


def test_three_seeds_show_a_t_interval_worked_out_by_hand() -> None:
    # mean .7, s = .1, s/sqrt(3) = .057735, t(.975, 2) = 4.302653
    found = pool([0.6, 0.7, 0.8], [0.0, 1.0])
    assert found.kind == "t"
    assert found.mean == pytest.approx(0.7)
    assert found.high - found.mean == pytest.approx(4.302653 * 0.0577350, rel=1e-5)
    assert found.mean - found.low == pytest.approx(4.302653 * 0.0577350, rel=1e-5)


def test_a_t_interval_stays_within_what_an_auc_can_be() -> None:
    assert pool([0.99, 1.0, 0.9], [0, 1]).high == 1.0
    assert pool([0.7, 0.7, 0.7], [0, 1]) == Pooled(*[pytest.approx(0.7)] * 3, "t")


def test_scores_of_every_seed_make_the_interval_of_seeds_and_records() -> None:
    owner = np.append(np.zeros(10, dtype=int), np.full(20, -1))
    runs = [
        Run(np.random.default_rng(s).normal(size=(1, 30)) + (owner == 0), owner) for s in range(3)
    ]
    found = pool([0.7, 0.7, 0.7], [0, 1], runs)
    assert found.kind == "bootstrap"
    assert found.high - found.low > 0.05
    assert found == pool([0.7, 0.7, 0.7], [0, 1], runs)
    assert pool([0.7, 0.7, 0.7], [0, 1], [*runs[:2], None]).kind == "t"


def test_a_difference_needs_a_seed_on_both_sides() -> None:
    assert difference({0: 0.7}, {1: 0.7}, {}) is None
    assert difference({0: 0.7, 2: 0.1}, {0: 0.9, 1: 0.7}, {}) == Pooled(
        *[pytest.approx(-0.2)] * 3, "run"
    )


def test_scores_of_other_owners_are_not_paired() -> None:
    owner = np.append(np.zeros(10, dtype=int), np.full(20, -1))
    scores = np.random.default_rng(0).normal(size=(1, 30))
    a, b = Run(scores, owner), Run(scores, np.roll(owner, 1))
    values = dict.fromkeys(range(3), 0.7)
    same = difference(values, values, dict.fromkeys(range(3), (a, a)))
    assert same is not None
    assert (same.kind, same.mean) == ("bootstrap", 0.0)
    apart = difference(values, values, dict.fromkeys(range(3), (a, b)))
    assert apart is not None
    assert apart.kind == "t"


def test_scores_are_read_where_they_are_and_missing_ones_are_not_made_up(tmp_path) -> None:
    assert read_scores(None, "a") is None
    assert read_scores(tmp_path, "a") is None
    np.savez(tmp_path / "scores.npz", owner=[0, -1], labels=[0, 0], **{"score/a": [[1.0, 2.0]]})
    found = read_scores(tmp_path, "a")
    assert found is not None
    assert np.array_equal(found.scores, [[1.0, 2.0]])
    assert np.array_equal(found.owner, [0, -1])
    assert read_scores(tmp_path, "b") is None
