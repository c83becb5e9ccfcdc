"""Gaussian differential privacy: what one threshold proves about μ, and what a μ means in (ε, δ).

J. Dong, A. Roth, W. Su, Gaussian Differential Privacy, Journal of the Royal Statistical Society B
84(1), 2022: a μ-GDP mechanism leaves every test FNR ≥ Φ(Φ⁻¹(1 − FPR) − μ), and

    δ(ε) = Φ(−ε/μ + μ/2) − e^ε Φ(−ε/μ − μ/2)            (Corollary 2.13)

M. Nasr et al., Tight Auditing of Differentially Private Machine Learning, USENIX Security 2023:
μ ≥ Φ⁻¹(1 − FPR) − Φ⁻¹(FNR) with both rates bounded from above.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import erfcx, log_ndtr, ndtri

from fedmia.audit.rates import Errors, check_levels, check_trials, held_out_errors
from fedmia.metrics import Floats

_ALMOST_ONE = 1 - 2.0**-53


def mu_lower_bound(
    scores: ArrayLike, members: ArrayLike, confidence: float, rng: np.random.Generator
) -> float:
    """Return a μ that the mechanism's own exceeds, or equals, with the given confidence.

    The arguments, the halves and the errors raised are those of
    :func:`fedmia.audit.epsilon_lower_bound`. At least 0.
    """
    check_levels(0.0, confidence)

    def bound(errors: Errors) -> Floats:
        return _bound(errors, confidence)

    errors = held_out_errors(scores, members, bound, rng)
    return 0.0 if errors is None else float(bound(errors))


def mu_ceiling(num_members: int, num_nonmembers: int, confidence: float) -> float:
    """Return the μ that an attack without a single error would prove with so many counted trials.

    Raises ``ValueError`` as :func:`fedmia.audit.epsilon_ceiling`.
    """
    check_levels(0.0, confidence)
    check_trials(num_members, num_nonmembers)
    return float(_bound(Errors(0, num_nonmembers, 0, num_members), confidence))


def gaussian_epsilon_lower_bound(
    scores: ArrayLike,
    members: ArrayLike,
    delta: float,
    confidence: float,
    rng: np.random.Generator,
) -> float:
    """Return the ε, at δ > 0, of the Gaussian mechanism with the μ of :func:`mu_lower_bound`.

    Tighter than :func:`fedmia.audit.epsilon_lower_bound`, but a bound only for mechanisms whose
    trade-off curve is a Gaussian one, as noise on a clipped sum without subsampling has it. Of
    training without noise it says nothing. Raises ``ValueError`` as there, and at δ = 0, where
    no μ > 0 has a finite ε.
    """
    return epsilon_of_mu(mu_lower_bound(scores, members, confidence, rng), delta)


def delta_of_epsilon(epsilon: float, mu: float) -> float:
    """Return the smallest δ for which μ-GDP implies (ε, δ)-DP; ε, μ ≥ 0."""
    return float(np.exp(_log_delta(epsilon, mu))) if mu > 0 else 0.0


def epsilon_of_mu(mu: float, delta: float) -> float:
    """Return the smallest ε ≥ 0 for which μ-GDP implies (ε, δ)-DP.

    Raises
    ------
    ValueError
        If δ is not in (0, 1) or μ is negative.
    """
    _check(mu, "mu", delta)
    if mu == 0 or _log_delta(0.0, mu) <= np.log(delta):
        return 0.0
    # there Φ(−ε/μ + μ/2) ≤ δ/2
    enough = mu**2 / 2 + mu * np.sqrt(-2 * np.log(delta))
    return float(brentq(lambda e: _log_delta(e, mu) - np.log(delta), 0.0, enough, xtol=1e-12))


def mu_of_epsilon(epsilon: float, delta: float) -> float:
    """Return the largest μ for which μ-GDP implies (ε, δ)-DP: the inverse of :func:`epsilon_of_mu`.

    Raises ``ValueError`` if δ is not in (0, 1) or ε is negative.
    """
    _check(epsilon, "epsilon", delta)
    few, many = 1.0, 1.0
    while _log_delta(epsilon, few) > np.log(delta):
        few /= 2
    while _log_delta(epsilon, many) < np.log(delta):
        many *= 2
    if few == many:
        return few
    return float(brentq(lambda mu: _log_delta(epsilon, mu) - np.log(delta), few, many, xtol=1e-13))


def _check(value: float, name: str, delta: float) -> None:
    if not 0 < delta < 1 or value < 0:
        raise ValueError(f"{name}={value}, delta={delta}: expected ≥ 0 and in (0, 1)")


def _log_delta(epsilon: float, mu: float) -> float:
    """Return ln δ(ε): ln Φ(a) + ln(1 − e^ε Φ(b)/Φ(a)), a − b = μ."""
    a, b = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    if a <= 0:  # e^ε = φ(a)/φ(b), so that Mills' ratios remain, without overflow or cancellation
        ratio = erfcx(-b / np.sqrt(2)) / erfcx(-a / np.sqrt(2))
    else:
        ratio = np.exp(epsilon + log_ndtr(b) - log_ndtr(a))
    return float(log_ndtr(a) + np.log1p(-min(ratio, _ALMOST_ONE)))


def _bound(errors: Errors, confidence: float) -> Floats:
    fpr, fnr = errors.upper_rates(confidence)
    return np.maximum(-ndtri(fpr) - ndtri(fnr), 0.0)
