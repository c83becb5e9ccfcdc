"""The server's own records: what it learns from them is what a client with them would."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fedmia.records import Examples
from fedmia.root import Root
from fedmia.training import FlatModel, LocalSGD


def records(n=30):
    x = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    return Examples(x, (x[:, 0] > 0).astype(np.int64))


def root_of(module, n=30, **settings):
    return Root(module, LocalSGD(**settings), records(n), seed=5)


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(4, 2)


def test_one_full_step_by_hand(linear):
    root = root_of(linear, local_epochs=1, batch_size=30, lr=0.1)
    params = FlatModel(linear).params()
    data = records()
    loss = cross_entropy(linear(torch.tensor(data.x)), torch.tensor(data.y))
    weight, bias = torch.autograd.grad(loss, [linear.weight, linear.bias])
    found = root.update(params, 1)
    np.testing.assert_allclose(found["weight"], -0.1 * weight, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found["bias"], -0.1 * bias, rtol=1e-4, atol=1e-7)


def test_an_update_depends_on_the_round_and_on_nothing_before(linear):
    root, params = root_of(linear, batch_size=3), FlatModel(linear).params()
    first, second = (root.flat(root.update(params, t)) for t in (1, 2))
    assert np.abs(first - second).max() > 0
    np.testing.assert_array_equal(root.flat(root.update(params, 1)), first)


def test_accuracy_and_loss_are_those_of_the_records(linear):
    root, data = root_of(linear), records()
    weight = np.array([[-1, 0, 0, 0], [1, 0, 0, 0]], np.float32)
    exact = {"weight": weight, "bias": np.zeros(2, np.float32)}
    assert root.accuracy(exact) == 1.0
    assert root.accuracy(exact | {"weight": -weight}) == 0.0
    margin = 2 * np.abs(data.x[:, 0].astype(np.float64))
    assert root.loss(exact) == pytest.approx(np.log1p(np.exp(-margin)).mean(), rel=1e-5)


def test_a_vector_and_the_model_it_stands_for_are_each_others_inverse():
    root = root_of(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)))
    vector = np.arange(15 + 3 * 4 + 8, dtype=np.float32)
    params = root.at(vector)
    np.testing.assert_array_equal(params["0.weight"], np.arange(12.0).reshape(3, 4))
    assert params["1.num_batches_tracked"] == 0
    np.testing.assert_array_equal(root.flat(params), vector)
    assert root.update(params, 1).keys() == params.keys() - {"1.num_batches_tracked"}


def test_the_first_records_are_a_root_of_their_own(linear):
    root = root_of(linear).first(7)
    assert len(root) == 7
    np.testing.assert_array_equal(root.records.x, records().x[:7])


def test_records_take_turns_as_many_as_are_asked_for(linear):
    seen = []

    class Watched:
        def fit(self, model, x, y, rng):
            seen.append(x.numpy().copy())
            return 0.0

    root, params = Root(linear, Watched(), records(7), 0, per_round=3), FlatModel(linear).params()
    for number in (1, 2, 3):
        root.update(params, number)
    rows = [[0, 1, 2], [3, 4, 5], [6, 0, 1]]
    np.testing.assert_array_equal(seen, [records(7).x[row] for row in rows])
    replace(root, per_round=9).update(params, 2)
    assert len(seen[-1]) == 7
