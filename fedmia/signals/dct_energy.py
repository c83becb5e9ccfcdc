"""The energy of a dense layer's gradient in its lowest frequencies, without writing it down.

The gradient ``g = δ aᵀ`` is flattened to d coordinates, ``x = o·I + i``. With the first r vectors
of the orthonormal DCT-II the projection has, for ``S(m) = Σ_{f=1}^{r−1} cos(π m f / d)``, entries

    ``P_xy = (1 + S(x − y) + S(x + y + 1)) / d``,

so that ``gᵀ P g`` takes from δ and a no more than sums, autocorrelations and self-convolutions.
"""

from functools import lru_cache

import torch
from torch import Tensor

_LARGEST = 2**20
"""Coordinates of an array beyond which the sums ``S`` would take more memory than gradients do."""


def kept_energy(delta: Tensor, a: Tensor, kept: int) -> Tensor | None:
    """Return ``‖P g_n‖²`` of n gradients ``δ_n a_nᵀ``, (n,) float64.

    ``None`` where the array is so large that writing gradients down takes less.

    Parameters
    ----------
    delta, a
        Shapes (n, O) and (n, I).
    kept
        r, the number of coefficients.
    """
    outputs, inputs = delta.shape[1], a.shape[1]
    if outputs * inputs > _LARGEST:
        return None
    lags, sums = _sums(outputs, inputs, kept)
    delta, a = delta.double(), a.double()
    (lag_d, sum_d), (lag_a, sum_a) = _products(delta), _products(a)
    lag_d[:, 1:] *= 2  # a lag and its negative
    both = torch.cat([lag_a[:, 1:].flip(1), lag_a], 1)
    energy = ((lag_d @ lags) * both).sum(1) + ((sum_d @ sums) * sum_a).sum(1)
    energy += (delta.sum(1) * a.sum(1)).square()
    return (energy / (outputs * inputs)).clamp_min(0)


def _products(v: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``Σ_i v_i v_{i+p}`` for p = 0..m−1 and ``Σ_i v_i v_{p−i}`` for p = 0..2m−2."""
    m = v.shape[1]
    spectrum = torch.fft.rfft(v, 2 * m)
    lagged = torch.fft.irfft(spectrum.abs().square(), 2 * m)[:, :m]
    return lagged, torch.fft.irfft(spectrum.square(), 2 * m)[:, : 2 * m - 1]


@lru_cache(maxsize=8)
def _sums(outputs: int, inputs: int, kept: int) -> tuple[Tensor, Tensor]:
    """Return ``S(p·I + q)``, p = 0..O−1, q = −(I−1)..I−1, and ``S(p·I + q + 1)``, all p, q ≥ 0."""
    size = outputs * inputs
    p, q = torch.arange(2 * outputs - 1)[:, None], torch.arange(2 * inputs - 1)
    lags = _cosines(p[:outputs] * inputs + q - (inputs - 1), size, kept)
    return lags, _cosines(p * inputs + q + 1, size, kept)


def _cosines(m: Tensor, size: int, kept: int) -> Tensor:
    """Return ``S(m)`` by the closed form of Dirichlet's kernel, float64."""
    half = torch.pi * (m % (2 * size)).double() / (2 * size)
    whole = half == 0
    sine = torch.where(whole, 1.0, half.sin())
    return torch.where(whole, kept - 1.0, ((2 * kept - 1) * half).sin() / (2 * sine) - 0.5)
