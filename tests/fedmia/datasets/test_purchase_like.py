import numpy as np
import pytest

from fedmia.datasets.purchase_like import PurchaseLike
from fedmia.errors import ConfigError


def load(seed=0, **settings):
    return PurchaseLike(**settings).load(np.random.default_rng(seed))


def test_records_are_bits_and_classes_equally_frequent():
    data = load(num_samples=1000, num_features=60, num_classes=10)
    assert data.x.shape == (1000, 60)
    assert np.unique(data.x).tolist() == [0, 1]
    assert np.bincount(data.y).tolist() == [100] * 10
    assert (data.x == load(num_samples=1000, num_features=60, num_classes=10).x).all()
    assert (data.x != load(1, num_samples=1000, num_features=60, num_classes=10).x).any()


@pytest.mark.parametrize("memorisation", [0.0, 0.3, 1.0])
def test_the_dial_bounds_what_any_model_gets_right_on_unseen_records(memorisation):
    data = load(num_samples=4000, num_classes=10, memorisation=memorisation)
    seen, unseen = np.arange(2000), np.arange(2000, 4000)
    centres = np.stack([data.x[seen][data.y[seen] == c].mean(axis=0) for c in range(10)])
    guess = (data.x[unseen] @ (centres - 0.5).T).argmax(axis=1)
    best = 1 - memorisation * 0.9
    assert np.mean(guess == data.y[unseen]) == pytest.approx(best, abs=0.035)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"memorisation": 1.1}, "memorisation=1.1: expected a number in [0, 1]"),
        ({"bit_noise": 0.6}, "bit_noise=0.6: expected a number in [0, 0.5]"),
        ({"num_features": 0}, "num_features=0: expected at least 1"),
        ({"num_classes": 1}, "num_classes=1: expected at least 2"),
        ({"num_samples": 9, "num_classes": 10}, "num_samples=9: expected at least 10, one record"),
        ({"label_noise": 2}, "label_noise=2: expected a number in [0, 1]"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError) as caught:
        PurchaseLike(**settings)
    assert str(caught.value).startswith(message)
