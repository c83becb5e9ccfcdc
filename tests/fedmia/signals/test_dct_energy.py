import numpy as np
import pytest
import torch
from scipy.fft import dct

from fedmia.signals import dct_energy
from fedmia.signals.dct_energy import kept_energy


def test_two_by_two_worked_out_by_hand():
    # g = (1, 0)ᵀ(1, 0), flattened (1, 0, 0, 0): c_0 = 1/2, c_1 = √(1/2) cos(π/8).
    delta = a = torch.tensor([[1.0, 0.0]])
    assert kept_energy(delta, a, 1).tolist() == [pytest.approx(1 / 4)]
    second = np.cos(np.pi / 8) ** 2 / 2
    assert kept_energy(delta, a, 2).tolist() == [pytest.approx(1 / 4 + second)]
    assert kept_energy(delta, a, 4).tolist() == [pytest.approx(1)]


@pytest.mark.parametrize(("outputs", "inputs"), [(3, 5), (7, 2), (1, 6), (6, 1), (10, 64)])
@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_the_energy_is_that_of_the_gradient_written_down(outputs, inputs, share):
    rng = np.random.default_rng(0)
    delta, a = rng.normal(size=(4, outputs)), rng.normal(size=(4, inputs))
    kept = max(1, int(share * outputs * inputs))
    g = np.einsum("no,ni->noi", delta, a).reshape(4, -1)
    expected = (dct(g, norm="ortho", axis=1)[:, :kept] ** 2).sum(1)
    energy = kept_energy(torch.tensor(delta), torch.tensor(a), kept).numpy()
    np.testing.assert_allclose(energy, expected, rtol=1e-9, atol=1e-12)


def test_arrays_too_large_for_it_are_left_to_others(monkeypatch):
    monkeypatch.setattr(dct_energy, "_LARGEST", 5)
    assert kept_energy(torch.ones(1, 2), torch.ones(1, 3), 2) is None
