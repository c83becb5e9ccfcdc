"""Each epoch has a fresh share of the records, none of them twice."""

import numpy as np
import pytest
import torch
from local_training import data, fitted, network, session

from clients.defenses.data_sampling import DataSampling
from fedmia.errors import ConfigError
from fedmia.training import LocalSGD


def drawn(share, n, epochs, seed=3):
    """The numbers of the records that the epochs see."""
    x = torch.arange(n, dtype=torch.float32)[:, None]
    current = session(DataSampling(share), seed=seed)
    seen = [current.epoch(i + 1, x, 10 * x) for i in range(epochs)]
    assert all(torch.equal(10 * a, t) for a, t in seen)
    return [a[:, 0].int().tolist() for a, _ in seen]


@pytest.mark.parametrize(
    ("share", "n", "count"), [(0.5, 20, 10), (0.25, 10, 2), (0.01, 20, 1), (1.0, 7, 7)]
)
def test_a_share_of_the_records_is_drawn_and_none_twice(share, n, count):
    for records in drawn(share, n, 5):
        assert len(records) == len(set(records)) == count


def test_every_epoch_draws_anew_and_all_records_equally_often():
    epochs = drawn(0.5, 8, 2000)
    assert epochs[0] != epochs[1]
    often = np.bincount(np.concatenate(epochs), minlength=8) / 2000
    assert often == pytest.approx(np.full(8, 0.5), abs=0.05)


def test_an_epoch_takes_steps_on_the_drawn_records_alone():
    recipe = LocalSGD(local_epochs=1, batch_size=100, lr=0.1, momentum=0.0)
    (x, y), net = data(), network()
    fitted(DataSampling(0.5), recipe, net=net)
    (own,) = np.random.default_rng(3).spawn(1)
    chosen = own.choice(10, 5, replace=False, shuffle=False)
    wanted, _ = fitted(None, recipe, records=(x[chosen], y[chosen]))
    assert torch.allclose(net.flat, wanted.flat, atol=1e-6)


def test_all_records_are_those_of_plain_training():
    found, wanted = (fitted(d, LocalSGD(1, 100))[0] for d in (DataSampling(1.0), None))
    assert torch.allclose(found.flat, wanted.flat, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 1.1, np.nan])
def test_a_share_out_of_range_is_refused_in_one_line(share):
    with pytest.raises(ConfigError, match=rf"^share={share}: expected in \(0, 1\]$"):
        DataSampling(share)
