"""Labels have the entropy that is asked for, and predictions are drawn to no more confidence."""

import math

import pytest
import torch
from local_training import data, fitted, network, session

from clients.defenses.hamp import Hamp, confidence
from fedmia.errors import ConfigError
from fedmia.models.cnn import CNN
from fedmia.training import LocalSGD


def entropy(p):
    return float(-(p * p.log()).sum())


def test_the_confidence_is_that_of_a_coin_worked_out_by_hand():
    share = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2)) / math.log(2)
    assert confidence(share, 2) == pytest.approx(0.8)


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("gamma", [0.05, 0.5, 0.95, 0.999])
def test_labels_have_the_entropy_and_their_class_comes_first(gamma, classes):
    targets = torch.eye(classes, dtype=torch.float64)
    soft = session(Hamp(gamma)).labels(torch.zeros(classes, 1), targets)
    assert torch.allclose(soft.sum(1), torch.ones(classes, dtype=torch.float64))
    assert entropy(soft[0]) == pytest.approx(gamma * math.log(classes), rel=1e-6)
    assert torch.equal(soft.argmax(1), torch.arange(classes))
    assert torch.unique(soft.round(decimals=9)).numel() == 2


@pytest.mark.parametrize("builder", [None, CNN([2], 5)])
def test_a_step_is_that_of_the_divergence_less_the_entropy(builder):
    (x, y), net = data(), network(builder)
    recipe = LocalSGD(local_epochs=1, batch_size=100, lr=0.5, momentum=0.0)
    module, before = network(builder).module, net.flat.clone()
    q = confidence(0.7, 3)
    t = torch.full((len(y), 3), (1 - q) / 2).scatter(1, y[:, None], q)
    log_p = module(x).log_softmax(1)
    divergence = (t * (t.log() - log_p)).sum(1)
    wanted = (divergence + 0.4 * (log_p.exp() * log_p).sum(1)).mean()
    gradients = torch.autograd.grad(wanted, list(module.parameters()))

    _, loss = fitted(Hamp(0.7, 0.4), recipe, net=net)

    step = torch.cat([g.flatten() for g in gradients])
    assert torch.allclose(net.flat, before - 0.5 * step, atol=1e-6)
    assert loss == pytest.approx(float(wanted.detach()), rel=1e-4)


@pytest.mark.parametrize("gamma", [1e-13, 1e-6, 1 - 1e-15])
def test_labels_of_hardly_any_entropy_and_of_nearly_all_have_their_confidence(gamma):
    for classes in (2, 10, 1000):
        q = confidence(gamma, classes)
        rest = (1 - q) / (classes - 1)
        entropy = -q * math.log(q) - (1 - q) * math.log(rest)
        assert entropy / math.log(classes) == pytest.approx(gamma, abs=1e-10)


def test_a_memorised_record_has_the_confidence_of_its_label_and_less_with_the_regulariser():
    records = data(3)

    def certainty(defense):
        net, _ = fitted(defense, LocalSGD(400, 4, lr=0.1), records=records)
        return net.module(records[0]).softmax(1)[range(3), records[1]].detach()

    q = confidence(0.7, 3)
    alone, beside = certainty(Hamp(0.7, 0.0)), certainty(Hamp(0.7, 0.5))
    assert alone.tolist() == pytest.approx([q] * 3, abs=0.03)
    assert (beside < alone - 0.05).all()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"gamma": 0.0}, r"gamma=0\.0: expected in \(0, 1\)"),
        ({"gamma": 1.0}, r"gamma=1\.0: expected in \(0, 1\)"),
        ({"alpha": -1.0}, r"alpha=-1\.0: expected at least 0 and finite"),
        ({"alpha": math.inf}, r"alpha=inf: expected at least 0 and finite"),
    ],
)
def test_values_out_of_range_are_refused_in_one_line(settings, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        Hamp(**settings)
