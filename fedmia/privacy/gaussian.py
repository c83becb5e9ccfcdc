"""The exact price of one Gaussian release (B. Balle, Y.-X. Wang, ICML 2018, arXiv 1805.06530).

δ(ε) = Φ(μ/2 − ε/μ) − exp(ε)Φ(−μ/2 − ε/μ) (Theorem 8), with μ the sensitivity over the noise's
standard deviation. T releases with the same noise are one with μ√T.
"""

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr


def epsilon_of_gaussian(mu: float, delta: float) -> float:
    """Return the smallest ε ≥ 0 at which a Gaussian release of signal μ is (ε, δ)-DP.

    ``mu`` in [0, ∞], ``delta`` in (0, 1).
    """
    if math.isinf(mu):
        return math.inf
    if mu == 0 or _log_delta(0.0, mu) <= math.log(delta):
        return 0.0
    high = mu**2 / 2 + mu * math.sqrt(2 * math.log(1 / delta))
    return float(
        brentq(lambda epsilon: _log_delta(epsilon, mu) - math.log(delta), 0.0, high, xtol=1e-12)
    )


def mu_of_gaussian(epsilon: float, delta: float) -> float:
    """Return the largest μ whose release is (ε, δ)-DP; ``epsilon`` ≥ 0, ``delta`` in (0, 1)."""
    high = 1.0
    while _log_delta(epsilon, high) <= math.log(delta):
        high *= 2
    return float(
        brentq(lambda mu: _log_delta(epsilon, mu) - math.log(delta), 1e-12, high, xtol=1e-14)
    )


def _log_delta(epsilon: float, mu: float) -> float:
    """Return ln δ(ε), −∞ where it is too small for the difference."""
    first = float(log_ndtr(mu / 2 - epsilon / mu))
    second = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    if second >= first:
        return -1e300
    return first + float(np.log(-np.expm1(second - first)))
