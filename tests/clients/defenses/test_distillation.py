"""Soft labels come from teachers that have not seen the record, and the client learns from them."""

import numpy as np
import pytest
import torch
from local_training import RECIPE, data, fitted, network, session
from torch.nn.functional import one_hot

from clients.defenses.distillation import Distillation, parts
from fedmia.errors import ConfigError
from fedmia.models.cnn import CNN
from fedmia.training import LocalSGD


def taught(defense, records, net, seed=3):
    x, y = records
    targets = one_hot(y, 3).float()
    return session(defense, records, net, seed=seed).labels(x, targets)


@pytest.mark.parametrize("builder", [None, CNN([2], 5)])
def test_a_record_is_labelled_by_a_teacher_trained_on_the_other_parts(builder):
    (x, y), net = data(11), network(builder)
    soft = taught(Distillation(3, temperature=2.0), (x, y), net)
    rng = np.random.default_rng(3)
    dealt = parts(y.numpy(), 3, rng)
    for part in range(3):
        teacher = network(builder)
        RECIPE.fit(teacher, x[dealt != part], y[dealt != part], rng)
        wanted = (teacher.module.eval()(x[dealt == part]) / 2).softmax(1).detach()
        assert torch.allclose(soft[dealt == part], wanted, atol=1e-6)
    assert torch.equal(net.flat, network(builder).flat)


def test_part_of_the_label_may_be_the_records_own():
    records = data(8)
    whole = taught(Distillation(), records, network())
    mixed = taught(Distillation(weight=0.25), records, network())
    wanted = 0.75 * one_hot(records[1], 3) + 0.25 * whole
    assert torch.allclose(mixed, wanted, atol=1e-6)


def test_parts_are_dealt_class_by_class_at_random_and_are_as_large_as_each_other():
    y = np.repeat([0, 1, 2], [4, 4, 6])
    dealt = parts(y, 2, np.random.default_rng(0))
    for label, count in ((0, 2), (1, 2), (2, 3)):
        assert np.bincount(dealt[y == label]).tolist() == [count, count]
    again = parts(y, 2, np.random.default_rng(1))
    assert (dealt != again).any()
    many = parts(y, 100, np.random.default_rng(0))
    assert sorted(many) == [*range(14)]


def test_the_model_learns_what_the_teachers_say_and_not_labels_that_are_noise():
    def fit_of(defense):
        records = data(12)
        net, _ = fitted(defense, LocalSGD(300, 4, lr=0.02), records=records)
        return float((net.module(records[0]).argmax(1) == records[1]).float().mean())

    assert fit_of(None) == 1.0
    assert fit_of(Distillation()) < 0.7


def test_a_client_with_one_record_is_refused_before_training():
    Distillation().check_records([2, 0, 30])
    with pytest.raises(ConfigError, match=r"^parts=2: expected clients with two records or more"):
        Distillation().check_records([20, 1])


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"parts": 1}, "parts=1: expected at least 2"),
        ({"temperature": 0.0}, r"temperature=0\.0: expected more than 0 and finite"),
        ({"weight": 0.0}, r"weight=0\.0: expected in \(0, 1\]"),
    ],
)
def test_values_out_of_range_are_refused_in_one_line(settings, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        Distillation(**settings)
