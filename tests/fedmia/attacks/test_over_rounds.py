"""Attacks that watch how a record fares from round to round: jump and update correlation."""

import numpy as np
import pytest
from scipy.stats import ttest_ind
from signal_worlds import ask, view

from fedmia.attacks.base import NotApplicableError
from fedmia.attacks.jump import Jump
from fedmia.attacks.update_correlation import UpdateCorrelation
from fedmia.metrics import auc


def losses(changes):
    """Return global losses with the given change in each round, the final model last."""
    changes = np.asarray(changes, dtype=float)
    return np.vstack([np.full(changes.shape[1], 5.0), 5.0 + changes.cumsum(axis=0)])


def seen_with(loss, present, rounds=None):
    seen = view((10, 20), np.column_stack([present, np.ones(len(present))]), loss_global=loss)
    seen.signals.rounds_global = rounds or (*range(1, len(present) + 1), None)
    return seen


# jump


def test_jump_is_the_two_sample_t_statistic():
    rng = np.random.default_rng(0)
    present = np.array([1, 0, 0, 1, 1, 0, 1, 0], bool)
    changes = rng.normal(size=(8, 5))

    scores = ask(Jump(), seen_with(losses(changes), present), n=5)

    naive = ttest_ind(changes[~present], changes[present]).statistic
    assert scores == pytest.approx(naive, abs=1e-9)


def test_jump_worked_out_by_hand():
    # with the target −3, −1; without 1, 1, 1: difference 3, pooled variance 2/3, error √(2/3 · 5/6)
    seen = seen_with(losses([[-3.0], [1], [-1], [1], [1]]), np.array([1, 0, 1, 0, 0]))

    assert ask(Jump(), seen, n=1) == pytest.approx([3 / np.sqrt(5 / 9)])


def test_cusum_worked_out_by_hand():
    # p − ½ = ±½; changes −1, 1, −1, 1 and none in the second half: mean 0, s = √½
    # x = ½/s, ½/s, ½/s, ½/s, 0, 0, 0, 0; the sum never falls, and ends at 2/s
    present = np.array([1, 0, 1, 0, 1, 0, 1, 0])
    seen = seen_with(losses([[-1.0], [1], [-1], [1], [0], [0], [0], [0]]), present)

    assert ask(Jump("cusum"), seen, n=1) == pytest.approx([2 / np.sqrt(0.5)])


def test_cusum_forgets_what_spoke_against_it():
    # the same with its sign turned in the first half: −½/s four times are forgotten
    present = np.array([1, 0, 1, 0, 1, 0, 1, 0])
    changes = np.array([[1.0], [-1], [1], [-1], [-1], [1], [-1], [1]])
    seen = seen_with(losses(changes), present)

    assert ask(Jump("cusum"), seen, n=1) == pytest.approx([4 * 0.5])
    assert ask(Jump(), seen, n=1) == pytest.approx([0], abs=1e-9)


@pytest.mark.parametrize("statistic", ["difference", "cusum"])
def test_a_loss_that_does_not_change_says_nothing(statistic):
    seen = seen_with(np.full((6, 2), 3.0), np.array([1, 0, 1, 0, 1]))

    assert ask(Jump(statistic), seen).tolist() == [0, 0]


@pytest.mark.parametrize("statistic", ["difference", "cusum"])
def test_rounds_that_were_not_seen_in_sequence_are_left_out(statistic):
    changes = np.random.default_rng(0).normal(size=(6, 2))
    present = np.array([1, 0, 1, 1, 0, 0])
    whole = ask(Jump(statistic), seen_with(losses(changes), present))

    # a seventh round, and what happened in the rounds 7 to 9 is not known one by one
    loss = np.vstack([losses(changes)[:6], losses(changes)[6], [100, 100]])
    gap = seen_with(loss, np.array([1, 0, 1, 1, 0, 0, 1]), (1, 2, 3, 4, 5, 6, 7, None))
    gap.signals.rounds_global = (1, 2, 3, 4, 5, 6, 7, 10)
    gap.signals.present = np.vstack([gap.signals.present, [[True, True]]])

    assert ask(Jump(statistic), gap) == pytest.approx(whole)


@pytest.mark.parametrize("present", [[1, 1, 1, 1], [0, 0, 0, 0]], ids=["all", "none"])
def test_jump_needs_rounds_with_and_without_the_target(present):
    seen = seen_with(losses(np.ones((4, 2))), np.array(present))

    expected = f"rounds with and without the target; it took part in {sum(present)} of 4$"
    with pytest.raises(NotApplicableError, match=expected):
        ask(Jump(), seen)


def test_jump_needs_three_changes():
    with pytest.raises(NotApplicableError, match="three rounds"):
        ask(Jump(), seen_with(losses(np.ones((2, 2))), np.array([1, 0])))


def test_cusum_finds_a_record_that_was_there_for_a_part_of_the_rounds():
    rng = np.random.default_rng(0)
    present = rng.random(120) < 0.5
    members = np.arange(300) % 2 == 0
    changes = rng.normal(size=(120, 300))
    changes[50:70] -= 1.5 * (present[50:70, None] & members)
    seen = seen_with(losses(changes), present)

    cusum = auc(ask(Jump("cusum"), seen, n=300), members)

    assert cusum > auc(ask(Jump(), seen, n=300), members) + 0.02
    assert cusum > 0.8


# update correlation


def test_correlation_is_pearsons_over_the_targets_rounds():
    rng = np.random.default_rng(0)
    inner, norm = rng.normal(size=(6, 2, 5)), rng.exponential(size=(6, 5))
    present = np.array([1, 1, 0, 1, 0, 1], bool)
    inner[~present, 0] = np.nan
    seen = view((10, 20), np.column_stack([present, np.ones(6)]), inner=inner, grad_norm=norm)

    for k, (node, rows) in enumerate({10: present, 20: np.ones(6, bool)}.items()):
        naive = [np.corrcoef(inner[rows, k, i], norm[rows, i] ** 2)[0, 1] for i in range(5)]
        assert ask(UpdateCorrelation(), seen, node, n=5) == pytest.approx(naive, abs=1e-9)


def test_a_share_that_grows_with_the_gradient_is_one_and_a_constant_is_zero():
    norm = np.array([[1.0] * 4, [2.0] * 4, [3.0] * 3 + [1.0]])
    norm[:, 3] = 0.1
    inner = np.stack([0.3 * norm[:, 0] ** 2, -(norm[:, 1] ** 2), [0.1] * 3, [1, 2, 3]], axis=1)
    seen = view((10,), inner=inner[:, None], grad_norm=norm)

    assert ask(UpdateCorrelation(), seen, n=4) == pytest.approx([1, -1, 0, 0])


def test_correlation_does_not_depend_on_the_scale_of_updates():
    rng = np.random.default_rng(0)
    inner, norm = rng.normal(size=(5, 1, 3)), rng.exponential(size=(5, 3))
    small = view((10,), inner=inner * 1e-6, grad_norm=norm)

    expected = ask(UpdateCorrelation(), view((10,), inner=inner, grad_norm=norm), n=3)
    assert ask(UpdateCorrelation(), small, n=3) == pytest.approx(expected, abs=1e-9)


def test_two_rounds_always_correlate_and_are_refused():
    seen = view((10,), inner=np.ones((2, 1, 2)), grad_norm=np.ones((2, 2)))

    with pytest.raises(NotApplicableError, match=r"needs 3 rounds .* it did in 2"):
        ask(UpdateCorrelation(), seen)
