import numpy as np
import pytest

from fedmia.datasets.wine import Wine


def test_every_feature_is_standardised_and_every_class_is_there():
    data = Wine().load(np.random.default_rng(0))
    assert data.x.shape == (178, 13)
    assert data.x.dtype == np.float32
    assert data.x.mean(axis=0) == pytest.approx(0, abs=1e-5)
    assert data.x.std(axis=0) == pytest.approx(1, abs=1e-5)
    assert data.class_names == ("class_0", "class_1", "class_2")
    assert np.bincount(data.y).tolist() == [59, 71, 48]
