import numpy as np
import pytest

from fedmia.datasets.breast_cancer import BreastCancer


def test_every_feature_is_standardised_and_every_class_is_there():
    data = BreastCancer().load(np.random.default_rng(0))
    assert data.x.shape == (569, 30)
    assert data.x.dtype == np.float32
    assert data.x.mean(axis=0) == pytest.approx(0, abs=1e-5)
    assert data.x.std(axis=0) == pytest.approx(1, abs=1e-5)
    assert data.class_names == ("malignant", "benign")
    assert np.bincount(data.y).tolist() == [212, 357]
