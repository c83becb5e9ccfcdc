import numpy as np

from fedmia.datasets.scaling import standardise


def test_columns_get_mean_zero_and_deviation_one_and_constant_ones_become_zero():
    x = np.array([[1.0, 0.1, 0.0], [3.0, 0.1, 0.0], [5.0, 0.1, 0.0]])
    root = np.sqrt(1.5)  # deviation of 1, 3, 5 is √(8/3), and 2/√(8/3) = √1.5
    assert np.allclose(standardise(x), [[-root, 0, 0], [0, 0, 0], [root, 0, 0]], atol=1e-12)
