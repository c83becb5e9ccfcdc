"""Around a strategy that hides updates, rules for single ones are refused in one line."""

import pytest

from fedmia.errors import ConfigError
from fedmia.secagg.protocol import Protocol
from strategies.anomaly import Anomaly
from strategies.open_updates import expect_open
from strategies.robust import Robust
from strategies.secagg_plus import SecAggPlus
from tests.strategies.central_rounds import fed_avg

SAID = r"inner=SecAggPlus: expected one that sees single updates: .*\[secagg_plus, clipping\]"


class Mean(Robust):
    def combine(self, updates):
        return updates.matrix.mean(axis=0)


@pytest.mark.parametrize("wrapper", [Mean, lambda inner: Anomaly(inner, rounds=30)])
def test_what_cannot_be_checked_and_what_can_is_said(wrapper):
    with pytest.raises(ConfigError, match=SAID):
        wrapper(SecAggPlus(fed_avg(), Protocol(cohort=10)))


def test_a_strategy_that_sees_updates_passes():
    expect_open(fed_avg())
