import numpy as np

from fedmia.datasets.digits import Digits


def test_digits_are_images_in_the_unit_interval():
    data = Digits().load(np.random.default_rng(0))
    assert data.x.shape == (1797, 1, 8, 8)
    assert data.x.dtype == np.float32
    assert (data.x.min(), data.x.max()) == (0, 1)
    assert data.class_names == tuple("0123456789")
    assert np.bincount(data.y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # the first image is a 0 whose first row reads 0 0 5 13 9 1 0 0 of 16
    assert (data.x[0, 0, 0] * 16).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert data.y[0] == 0
