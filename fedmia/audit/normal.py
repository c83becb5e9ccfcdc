"""Two normal laws: their exact ε at δ, and whether data follow a normal law at all."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr
from scipy.stats import norm

Normal = tuple[float, float]
"""Mean and standard deviation."""


def epsilon_of_gaussians(first: Normal, second: Normal, delta: float) -> float:
    """Return the smallest ε ≥ 0 at which two normal laws are (ε, δ)-indistinguishable, exactly.

    δ(ε) = max over both orders of P(A) − e^ε Q(A), A = {ln p/q > ε}: a half-line for equal
    variances, else an interval or the outside of one.

    Raises
    ------
    ValueError
        If δ is not in (0, 1) or a standard deviation is not positive.
    """
    if not 0 < delta < 1 or not min(first[1], second[1]) > 0:
        raise ValueError(f"laws {first}, {second}, delta={delta}: expected std > 0, δ in (0, 1)")

    def above(epsilon: float) -> float:
        both = _log_delta(epsilon, first, second), _log_delta(epsilon, second, first)
        return max(*both, -1e3) - float(np.log(delta))

    if above(0.0) <= 0:
        return 0.0
    high = 1.0
    while above(high) > 0:
        high *= 2
    return float(brentq(above, 0.0, high, xtol=1e-10))


def normality(values: ArrayLike) -> float:
    """Return the Anderson–Darling p-value of normal data with unknown mean and variance.

    Stephens' approximation (R. B. D'Agostino, M. A. Stephens, Goodness-of-Fit Techniques, 1986,
    table 4.9). Shape (k,), k ≥ 8. Raises ``ValueError`` for fewer, or if all are equal.
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    if x.size < 8:
        raise ValueError(f"{x.size} values: expected at least 8")
    mean, std = fit_normal(x)
    z, n = (x - mean) / std, x.size
    weights = 2 * np.arange(1, n + 1) - 1
    a = -n - np.mean(weights * (norm.logcdf(z) + norm.logsf(z[::-1])))
    a *= 1 + 0.75 / n + 2.25 / n**2
    if a >= 0.6:
        return float(np.exp(1.2937 - 5.709 * a + 0.0186 * a**2)) if a < 13 else 0.0
    if a > 0.34:
        return float(np.exp(0.9177 - 4.279 * a - 1.38 * a**2))
    if a > 0.2:
        return float(1 - np.exp(-8.318 + 42.796 * a - 59.938 * a**2))
    return float(1 - np.exp(-13.436 + 101.14 * a - 223.73 * a**2))


def fit_normal(values: ArrayLike) -> Normal:
    """Return the mean and standard deviation of values of shape (k,).

    Raises ``ValueError`` if there are fewer than two, all are equal or one is not finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size < 2 or not np.isfinite(x).all() or np.ptp(x) == 0:
        raise ValueError(f"shape {x.shape}: expected at least two finite values, not all equal")
    return float(x.mean()), float(x.std(ddof=1))


def _log_delta(epsilon: float, p: Normal, q: Normal) -> float:
    """Return ln(P(A) − e^ε Q(A)) in units of Q: Q = N(0, 1), P = N(shift, ratio²)."""
    shift, ratio = (p[0] - q[0]) / q[1], p[1] / q[1]
    # ln p/q − ε = square·z² + slope·z + constant
    square, slope = (1 - ratio**-2) / 2, shift / ratio**2
    constant = -(shift**2) / (2 * ratio**2) - np.log(ratio) - epsilon
    root = slope**2 - 4 * square * constant
    if root <= 0:
        # never above ε; or always, which two normalised densities cannot be
        return -np.inf
    half = -(slope + np.copysign(np.sqrt(root), slope)) / 2
    with np.errstate(divide="ignore"):  # equal variances: one of the ends is infinite
        low, high = sorted((np.divide(half, square), constant / half))
    ends = np.array([low, high])
    mass_q, mass_p = (_log_mass(e, square < 0) for e in (ends, (ends - shift) / ratio))
    kept = -np.expm1(min(epsilon + mass_q - mass_p, 0.0))
    return float(mass_p + np.log(kept)) if kept > 0 else -np.inf


def _log_mass(ends: NDArray[np.float64], inside: bool) -> float:
    """Return the log probability of an interval, or of its outside, under N(0, 1)."""
    low, high = ends
    if not inside:
        return float(np.logaddexp(log_ndtr(low), log_ndtr(-high)))
    if low > 0:
        low, high = -high, -low
    return float(log_ndtr(high) + np.log(-np.expm1(log_ndtr(low) - log_ndtr(high))))
