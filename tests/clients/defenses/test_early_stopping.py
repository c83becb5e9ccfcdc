"""Held-out records are never trained on, and the epoch that predicts them best is kept."""

import numpy as np
import pytest
import torch
from local_training import context, data, fitted, network, session
from torch.nn.functional import cross_entropy

from clients.defenses.early_stopping import EarlyStopping
from fedmia.errors import ConfigError
from fedmia.models.cnn import CNN
from fedmia.training import LocalSGD


def held_out(defense, n=10, partition_id=0, seed=3):
    """The numbers of the records that a client holds out."""
    x = torch.arange(n, dtype=torch.float32)[:, None]
    y = torch.zeros(n, dtype=torch.int64)
    current = session(defense, (x, y), at=context(partition_id), seed=seed)
    return sorted({*range(n)} - {*current.records(x, y)[0][:, 0].int().tolist()})


@pytest.mark.parametrize(("share", "n", "count"), [(0.2, 10, 2), (0.01, 10, 1), (0.99, 4, 3)])
def test_a_share_is_held_out_and_one_record_at_least_on_either_side(share, n, count):
    assert len(held_out(EarlyStopping(share), n)) == count


def test_the_same_records_in_every_round_others_at_other_clients_and_seeds():
    defense = EarlyStopping(0.5)
    assert held_out(defense, 20) == held_out(defense, 20, seed=4)
    assert held_out(defense, 20) != held_out(defense, 20, partition_id=1)
    assert held_out(defense, 20) != held_out(EarlyStopping(0.5, seed=1), 20)


@pytest.mark.parametrize("builder", [None, CNN([2], 5)])
@pytest.mark.parametrize("patience", [1, 3])
def test_the_epoch_of_least_held_out_loss_is_kept(builder, patience):
    (x, y), defense = data(20), EarlyStopping(0.3, patience)
    out = held_out(defense, 20)
    rest = [i for i in range(20) if i not in out]
    # the twin trains for every number of epochs, and stops as the paper says
    losses, models = [np.inf], [None]
    for epochs in range(1, 31):
        recipe = LocalSGD(epochs, 4, lr=0.1)
        net, _ = fitted(None, recipe, network(builder), (x[rest], y[rest]))
        with torch.no_grad():
            losses.append(float(cross_entropy(net.module(x[out]), y[out])))
        models.append(net.flat)
        best = int(np.argmin(losses))
        if epochs - best >= patience:
            break
    assert 1 <= best < 30 - patience  # noisy labels: there is something to stop for
    found, _ = fitted(defense, LocalSGD(30, 4, lr=0.1), network(builder), (x, y))
    assert torch.allclose(found.flat, models[best], atol=1e-5)


def test_training_stops_after_so_many_epochs_that_are_no_better():
    current = session(EarlyStopping(0.3, 2), net=network(), records=data(20))
    # the model does not move: no later epoch is better than the first
    assert [current.after(number) for number in (1, 2, 3)] == [False, False, True]


def test_a_client_with_one_record_is_refused_before_training():
    EarlyStopping().check_records([2, 0, 30])
    expected = r"^share=0\.2: expected clients with two records or more, .*; one has 1$"
    with pytest.raises(ConfigError, match=expected):
        EarlyStopping().check_records([20, 1])


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"share": 0.0}, r"share=0\.0: expected in \(0, 1\)"),
        ({"share": 1.0}, r"share=1\.0: expected in \(0, 1\)"),
        ({"patience": 0}, "patience=0: expected at least 1"),
    ],
)
def test_values_out_of_range_are_refused_in_one_line(settings, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        EarlyStopping(**settings)


def test_one_epoch_is_plain_training_on_what_is_left():
    (x, y), out = data(), held_out(EarlyStopping())
    rest = [i for i in range(10) if i not in out]
    recipe = LocalSGD(local_epochs=1, batch_size=4, lr=0.1)
    found, _ = fitted(EarlyStopping(), recipe)
    wanted, _ = fitted(None, recipe, records=(x[rest], y[rest]))
    assert torch.allclose(found.flat, wanted.flat, atol=1e-6)
