"""Angular trimmed mean by hand, and against updates that point away."""

import numpy as np
import pytest

from fedmia.errors import ConfigError
from strategies.angular_trimmed_mean import AngularTrimmedMean
from tests.strategies.central_rounds import fed_avg
from tests.strategies.rounds_of import updates_of


def test_those_that_point_away_are_left_out_by_hand():
    # directions 0°, 10°, 20°, 90°, 180°; sums of angles 300, 270, 260, 330, 620: b=1 drops two.
    degrees = np.radians([0, 10, 20, 90, 180])
    rows = np.stack([np.cos(degrees), np.sin(degrees)], axis=1) * [[1], [2], [3], [1], [1]]
    found = AngularTrimmedMean(fed_avg(), byzantine=1).combine(updates_of(rows))
    np.testing.assert_allclose(found, rows[:3].mean(axis=0), rtol=1e-5)


def test_lengths_play_no_part():
    rows = np.array([[1.0, 0.1], [1.0, -0.1], [1.0, 0.0], [100.0, 0.0], [-1.0, 0.0]])
    found = AngularTrimmedMean(fed_avg(), byzantine=1).combine(updates_of(rows))
    assert found[0] > 30


def test_nobody_is_left_out_without_byzantine_clients():
    rows = np.random.default_rng(0).normal(size=(4, 6))
    found = AngularTrimmedMean(fed_avg(), byzantine=0).combine(updates_of(rows))
    np.testing.assert_allclose(found, rows.mean(axis=0), rtol=1e-5)


def test_b_that_leaves_nobody_is_refused():
    AngularTrimmedMean(fed_avg(), byzantine=4).check_asked(9)
    with pytest.raises(ConfigError, match="byzantine=5: expected at most 4: twice as many"):
        AngularTrimmedMean(fed_avg(), byzantine=5).check_asked(10)
    with pytest.raises(ConfigError, match="byzantine=-1: expected at least 0"):
        AngularTrimmedMean(fed_avg(), byzantine=-1)
