"""Signatures by hand: their entries, their blocks and their scale."""

from types import SimpleNamespace

import numpy as np
import pytest

from fedmia.attacks.base import NotApplicableError
from fedmia.attacks.signatures import Signatures, blocks_of, signatures


@pytest.mark.parametrize(
    ("present", "blocks", "expected"),
    [
        ([1, 1, 1, 1], 2, [[0, 1], [2, 3]]),
        ([1, 1, 1, 1, 1], 2, [[0, 1], [2, 3, 4]]),
        ([1, 0, 1, 0, 1, 1], 2, [[0, 2], [4, 5]]),
        ([0, 1, 0, 1], 4, [[1], [1], [3], [3]]),
        ([0, 1, 0, 0], 3, [[1], [1], [1]]),
    ],
)
def test_rounds_are_divided_evenly_and_shared_where_they_are_few(present, blocks, expected):
    found = blocks_of(np.array(present, dtype=bool), blocks)

    assert [b.tolist() for b in found] == expected


def test_no_rounds_make_no_blocks():
    with pytest.raises(NotApplicableError, match="needs a round in which the target took part"):
        blocks_of(np.zeros(3, dtype=bool), 2)


def test_entries_are_means_over_blocks_worked_out_by_hand():
    signals = SimpleNamespace(
        present=np.array([[1, 1], [0, 1], [1, 1]], dtype=bool),
        grad_norm=np.array([[2.0], [1.0], [0.5], [9.0]]),  # the last row is the final model's
        logit_gap_global=np.array([[1.0], [5.0], [2.0], [9.0]]),
        logit_gap_local=np.array([[[1.5], [0.0]], [[np.nan], [0.0]], [[4.0], [0.0]]]),
        cosine=np.array([[[0.5], [0.0]], [[np.nan], [0.0]], [[-0.1], [0.0]]]),
        inner=np.array([[[4.0], [0.0]], [[np.nan], [0.0]], [[0.25], [0.0]]]),
    )

    two = signatures(signals, np.array([0]), 2)
    one = signatures(signals, np.array([0, 1]), 1)

    step = np.arcsinh(1.0)  # 4 / 2² and .25 / .5²
    expected = np.array([[[0.5, step, 0.5, -0.1, step, 2.0]]])
    assert two.x == pytest.approx(expected, abs=1e-12)
    assert two.c == pytest.approx(np.array([[[1.0, np.log(2), 2.0, np.log(0.5)]]]), abs=1e-12)
    assert one.x[0] == pytest.approx(np.array([[0.2, step, 1.25]]), abs=1e-12)
    assert one.x[1] == pytest.approx(np.array([[0.0, 0.0, -8 / 3]]), abs=1e-12)
    assert one.c[1] == pytest.approx(np.array([[8 / 3, 0.0]]), abs=1e-12)


def test_a_gradient_that_vanishes_gives_finite_entries():
    ones = np.ones((1, 1, 1))
    signals = SimpleNamespace(
        present=np.ones((1, 1), dtype=bool),
        grad_norm=np.zeros((1, 1)),
        logit_gap_global=np.array([[40.0]]),
        logit_gap_local=41 * ones,
        cosine=0 * ones,
        inner=0 * ones,
    )

    made = signatures(signals, np.array([0]), 1)

    assert made.x.tolist() == [[[0.0, 0.0, 1.0]]]
    assert np.isfinite(made.c).all()


def test_the_scale_is_that_of_non_members_of_each_client():
    # client 0: mean 2, std 1 without the member; client 1: 10 and 2
    raw = np.array([[[1.0], [3.0], [7.0]], [[8.0], [12.0], [10.0]]])
    made = Signatures(raw, raw)
    non_member = np.array([[True, True, False], [True, True, True]])

    standard = made.standardised(made, non_member)

    assert standard.x[0, :, 0] == pytest.approx(np.arcsinh([-1.0, 1.0, 5.0]), abs=1e-12)
    deviation = np.sqrt(8 / 3)
    assert standard.c[1, :, 0] == pytest.approx(np.arcsinh(np.array([-2, 2, 0]) / deviation))


def test_what_does_not_vary_among_non_members_stays_finite():
    flat = Signatures(np.ones((1, 4, 1)), np.ones((1, 4, 1)))

    assert flat.standardised(flat).x.tolist() == np.zeros((1, 4, 1)).tolist()
