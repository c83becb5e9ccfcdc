"""A lower bound on ε from the two kinds of error of one threshold.

P. Kairouz, S. Oh, P. Viswanath, The Composition Theorem for Differential Privacy, ICML 2015: an
(ε, δ)-private mechanism leaves every test FPR + e^ε·FNR ≥ 1 − δ and e^ε·FPR + FNR ≥ 1 − δ.
M. Jagielski, J. Ullman, A. Oprea, Auditing Differentially Private Machine Learning, NeurIPS 2020:
both rates are bounded from above by Clopper–Pearson. The records of a run are taken as
independent trials, which no theorem promises; :mod:`fedmia.audit.one_run` needs no such promise.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from fedmia.audit.rates import Errors, check_levels, check_trials, held_out_errors
from fedmia.metrics import Floats


def epsilon_lower_bound(
    scores: ArrayLike,
    members: ArrayLike,
    delta: float,
    confidence: float,
    rng: np.random.Generator,
) -> float:
    """Return an ε that the mechanism exceeds, or equals, with the given confidence.

    With FPR and FNR bounded from above by Clopper–Pearson at (1 − confidence)/2 each,
    ε ≥ max{ln((1 − δ − FNR)/FPR), ln((1 − δ − FPR)/FNR)}. A random half of the members and of the
    non-members chooses the threshold, the other half alone is counted.

    Parameters
    ----------
    scores, members
        Shape (n,), float (higher = member) and bool: independent trials.
    delta
        δ of the guarantee in question, in [0, 1).
    confidence
        Joint confidence of the two error rates, in (0, 1).
    rng
        Draws the halves.

    Returns
    -------
    float
        At least 0; 0 where there are fewer than two members or two non-members.

    Raises
    ------
    ValueError
        If δ or the confidence is out of range, shapes differ or a score is not finite.
    """
    check_levels(delta, confidence)

    def bound(errors: Errors) -> Floats:
        return _bound(errors, delta, confidence)

    errors = held_out_errors(scores, members, bound, rng)
    return 0.0 if errors is None else float(bound(errors))


def epsilon_ceiling(
    num_members: int, num_nonmembers: int, delta: float, confidence: float
) -> float:
    """Return the bound that an attack without a single error would prove with so many trials.

    The counts are trials that are counted: no procedure of this kind proves more with that many
    records, and one that spends half of them on its threshold, as :func:`epsilon_lower_bound`, has
    the ceiling of the remaining half. Raises ``ValueError`` as there, or if a count is below 1.
    """
    check_levels(delta, confidence)
    check_trials(num_members, num_nonmembers)
    return float(_bound(Errors(0, num_nonmembers, 0, num_members), delta, confidence))


def epsilon_from_attacks(
    scores_by_attack: Mapping[str, ArrayLike],
    owner: ArrayLike,
    delta: float,
    confidence: float,
    rng: np.random.Generator,
) -> float:
    """Return the largest lower bound over several attacks of one run, valid for all at once.

    Every held-out record is tried on one target, drawn at random, so that no record is two trials;
    each attack is given 1 − (1 − confidence)/attacks (Bonferroni).

    Parameters
    ----------
    scores_by_attack
        Scores of shape (K, n) by the attack's name.
    owner
        Shape (n,): the row whose client trained on the record, −1 held out, −2 not evaluated.
    delta, confidence, rng
        As in :func:`epsilon_lower_bound`; the generator draws the targets as well.

    Returns
    -------
    float
        At least 0; 0 without attacks. Raises as :func:`epsilon_lower_bound`.
    """
    check_levels(delta, confidence)
    own = np.asarray(owner)
    record = np.flatnonzero(own >= -1)
    held = own[record] >= 0
    if not scores_by_attack or not held.any():
        return 0.0
    row = np.where(held, own[record], rng.choice(np.unique(own[own >= 0]), size=record.size))
    each = 1 - (1 - confidence) / len(scores_by_attack)
    return max(
        epsilon_lower_bound(np.asarray(scores)[row, record], held, delta, each, rng)
        for scores in scores_by_attack.values()
    )


def _bound(errors: Errors, delta: float, confidence: float) -> Floats:
    fpr, fnr = errors.upper_rates(confidence)
    odds = np.maximum((1 - delta - fnr) / fpr, (1 - delta - fpr) / fnr)
    return np.asarray(np.log(np.maximum(odds, 1.0)))
