"""The lowest coefficients of a cosine transform, written and read."""

import numpy as np
import pytest

from clients.payloads import spectrum


def naive_dct(vector):
    n = len(vector)
    rows = [
        np.sqrt((1 if k == 0 else 2) / n) * np.cos(np.pi * (np.arange(n) + 0.5) * k / n)
        for k in range(n)
    ]
    return np.array(rows) @ vector, np.array(rows)


def test_coefficients_are_those_of_the_orthonormal_dct():
    vector = np.random.default_rng(0).normal(size=12).astype(np.float32)
    coefficients, rows = naive_dct(vector)
    assert spectrum.transform(vector, 5) == pytest.approx(coefficients[:5], abs=1e-6)
    assert rows @ rows.T == pytest.approx(np.eye(12), abs=1e-12)


@pytest.mark.parametrize("kept", [1, 3, 12])
def test_what_is_read_is_the_projection_on_the_lowest_frequencies(kept):
    vector = np.random.default_rng(1).normal(size=12).astype(np.float32)
    coefficients, rows = naive_dct(vector)
    payload = spectrum.encode(spectrum.transform(vector, kept))
    assert len(payload) == 4 * kept
    expected = rows[:kept].T @ coefficients[:kept]
    assert spectrum.decode(payload, 12) == pytest.approx(expected, abs=1e-6)
