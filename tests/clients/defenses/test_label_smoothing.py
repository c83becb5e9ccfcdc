"""Labels are mixed with the uniform distribution, and the loss is minimal where they are met."""

import numpy as np
import pytest
import torch
from local_training import data, fitted, network, session
from torch.nn.functional import cross_entropy

from clients.defenses.label_smoothing import LabelSmoothing
from fedmia.errors import ConfigError
from fedmia.models.cnn import CNN
from fedmia.training import LocalSGD


def test_targets_are_those_worked_out_by_hand():
    x, targets = torch.zeros(2, 1), torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0]])
    same, smoothed = session(LabelSmoothing(0.2)).epoch(1, x, targets)
    assert same is x
    wanted = torch.tensor([[0.85, 0.05, 0.05, 0.05], [0.05, 0.05, 0.85, 0.05]])
    assert torch.allclose(smoothed, wanted)


@pytest.mark.parametrize("builder", [None, CNN([2], 5)])
def test_a_step_is_that_of_torchs_own_label_smoothing(builder):
    (x, y), net = data(), network(builder)
    recipe = LocalSGD(local_epochs=1, batch_size=100, lr=0.5, momentum=0.0)
    module = network(builder).module
    wanted_loss = cross_entropy(module(x), y, label_smoothing=0.3)
    gradients = torch.autograd.grad(wanted_loss, list(module.parameters()))
    before = net.flat.clone()
    _, loss = fitted(LabelSmoothing(0.3), recipe, net=net)
    wanted = before - 0.5 * torch.cat([g.flatten() for g in gradients])
    assert torch.allclose(net.flat, wanted, atol=1e-6)
    assert loss == pytest.approx(float(wanted_loss.detach()), rel=1e-5)


def test_a_memorised_record_keeps_the_smoothed_confidence():
    records = data(3)
    net, _ = fitted(LabelSmoothing(0.3), LocalSGD(400, 4, lr=0.1), records=records)
    p = net.module(records[0]).softmax(1)[range(3), records[1]]
    assert p.tolist() == pytest.approx([0.8, 0.8, 0.8], abs=0.03)  # 1 − ε + ε/3


@pytest.mark.parametrize("epsilon", [0.0, 1.0, np.nan])
def test_epsilon_out_of_range_is_refused_in_one_line(epsilon):
    with pytest.raises(ConfigError, match=rf"^epsilon={epsilon}: expected in \(0, 1\)$"):
        LabelSmoothing(epsilon)
