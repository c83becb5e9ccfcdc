"""Attack R: shares counted by hand, and what smoothing does to them."""

from statistics import NormalDist

import numpy as np
import pytest
from reference_world import World

from fedmia.attacks.attack_r import AttackR
from fedmia.attacks.base import NotApplicableError
from fedmia.attacks.reference_models import Panel
from fedmia.errors import ConfigError


def panel(gap, gaps, held=None):
    gaps = np.array(gaps, dtype=np.float64)
    held = np.zeros(gaps.shape, bool) if held is None else np.array(held, bool)
    return Panel(np.array(gap, dtype=np.float64), gaps, held)


def test_the_share_counted_by_hand_with_ties_half():
    seen = panel([2.0, 0.0, 9.0], [[1, 1, 1], [2, 2, 2], [3, 3, 3], [4, 4, 4]])

    assert AttackR(bandwidth=0)._share(seen).tolist() == [1.5 / 4, 0, 1]


def test_references_that_held_the_record_do_not_count():
    seen = panel([2.5], [[1], [2], [3], [4]], [[0], [1], [0], [1]])

    assert AttackR(bandwidth=0)._share(seen).tolist() == [0.5]
    with pytest.raises(NotApplicableError, match=r"^needs a reference model without the record"):
        AttackR()._share(panel([2.5], [[1]], [[1]]))


def test_the_smoothed_share_worked_out_by_hand():
    # scatter of the two records: 2 + 8 with 2 degrees of freedom, so σ² = 5; S = 2
    seen = panel([2.0, 3.0], [[1, 1], [3, 5]])
    h = 1.06 * 5**0.5 * 2**-0.2
    phi = NormalDist().cdf

    expected = [(phi(1 / h) + phi(-1 / h)) / 2, (phi(2 / h) + phi(-2 / h)) / 2]

    assert AttackR()._share(seen) == pytest.approx(expected, abs=1e-12)


def test_a_narrow_kernel_counts():
    rng = np.random.default_rng(0)
    seen = panel(rng.normal(0, 1, 50), rng.normal(0, 1, (8, 50)))

    narrow, counted = AttackR(bandwidth=1e-6)._share(seen), AttackR(bandwidth=0)._share(seen)

    assert narrow == pytest.approx(counted, abs=1e-9)
    assert len(np.unique(AttackR()._share(seen))) == 50


def test_smoothing_breaks_ties_and_finds_more_with_few_references():
    world = World(models=4)
    counted, smooth = world.score(AttackR(bandwidth=0)), world.score(AttackR())

    assert len(np.unique(counted)) == 5
    assert len(np.unique(smooth)) > 300
    assert world.auc(smooth, None) > world.auc(counted, None) + 0.02


def test_references_that_agree_to_the_last_bit_are_counted():
    assert AttackR()._share(panel([2.0, 1.0], [[1, 1], [1, 1]])).tolist() == [1, 0.5]


def test_a_bandwidth_below_zero_is_refused():
    with pytest.raises(ConfigError) as refusal:
        AttackR(bandwidth=-1.0)
    assert str(refusal.value) == "bandwidth=-1.0: expected at least 0"
