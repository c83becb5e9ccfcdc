import numpy as np
import pytest
from torch import nn

from fedmia.canaries.base import other_labels
from fedmia.canaries.mislabelled import Mislabelled
from fedmia.errors import ConfigError
from fedmia.records import Examples


def test_every_other_label_is_drawn_alike_and_never_the_own_one():
    labels = np.repeat(np.arange(4), 3000)
    found = other_labels(labels, 4, np.random.default_rng(0))
    assert not (found == labels).any()
    for label in range(4):
        counts = np.bincount(found[labels == label], minlength=4)
        others = np.delete(counts, label)
        assert counts[label] == 0
        assert np.abs(others - 1000).max() < 110


def test_features_stay_and_labels_change():
    x = np.random.default_rng(1).normal(size=(30, 5)).astype(np.float32)
    records = Examples(x, np.arange(30) % 3)
    made = Mislabelled(count=30).plant(
        records, records, nn.Linear(5, 3), 3, np.random.default_rng(2)
    )
    np.testing.assert_array_equal(made.x, x)
    assert (made.y != records.y).all()
    assert made.y.dtype == np.int64


def test_fewer_than_twenty_are_refused():
    with pytest.raises(ConfigError, match=r"^count=19: expected at least 20$"):
        Mislabelled(count=19)
