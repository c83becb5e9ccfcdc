"""What attacks on one model have in common, whichever signal they read."""

import numpy as np
import pytest
from signal_worlds import view

from fedmia.attacks.calibrated_loss import CalibratedLoss
from fedmia.attacks.confidence import Confidence
from fedmia.attacks.entropy import Entropy
from fedmia.attacks.grad_norm import GradNorm
from fedmia.attacks.modified_entropy import ModifiedEntropy
from fedmia.attacks.one_model import OneModelAttack
from fedmia.attacks.quantile_regression import QuantileRegression
from fedmia.attacks.yeom_loss import YeomLoss
from fedmia.errors import ConfigError
from fedmia.records import Capability

KINDS = [
    YeomLoss,
    Confidence,
    Entropy,
    GradNorm,
    ModifiedEntropy,
    CalibratedLoss,
    QuantileRegression,
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_local_model_takes_updates_instead_of_the_global_model(kind):
    ours, theirs = kind().requirements(), kind(model="local").requirements()

    assert isinstance(kind(), OneModelAttack)
    of_global = {Capability.GLOBAL_MODEL if kind is GradNorm else Capability.OUTPUTS}
    assert of_global <= ours
    assert theirs == ours - of_global | {Capability.CLIENT_UPDATES}


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_no_third_model(kind):
    with pytest.raises(ConfigError, match=r"^model=best: expected global or local$"):
        kind(model="best")


def test_a_signal_that_is_not_needed_is_not_computed():
    def never():
        raise AssertionError

    seen = view((10, 20), [[1, 1], [1, 0]], loss_global=np.zeros((2, 1)))
    local = np.array([[[1.0], [2]], [[3], [9]]])
    attack = Entropy("local")

    assert Entropy().last(seen, None, lambda: [[5.0], [6.0]], never).tolist() == [6]
    assert attack.last(seen, 20, never, lambda: local).tolist() == [2]
