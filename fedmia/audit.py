"""What attack scores prove about ε, and the blind scores that attacks have to beat.

A lower bound counts the two kinds of error of one threshold (Kairouz et al., ICML 2015; Jagielski
et al., NeurIPS 2020) and takes the records of a run as independent trials. The blind baselines
never look at a trained model: where one of them finds members, the split gives them away, and the
AUCs of the attacks beside it are confounded.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fedmia.metrics import roc

Floats = NDArray[np.float64]

_FOLDS = 10
_COMPONENTS = 64  # principal components of the features that a linear classifier is given
_STRENGTH = 0.1  # inverse of the classifier's L2 penalty


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
    _check_levels(delta, confidence)
    s, m = np.asarray(scores, dtype=np.float64), np.asarray(members, dtype=np.bool_)
    if s.shape != m.shape or s.ndim != 1 or not np.isfinite(s).all():
        raise ValueError(f"shapes scores={s.shape}, members={m.shape}: expected (n,) and finite")
    if min(m.sum(), (~m).sum()) < 2:
        return 0.0
    fit = np.zeros(m.size, dtype=np.bool_)
    for group in (np.flatnonzero(m), np.flatnonzero(~m)):
        fit[rng.permutation(group)[: group.size // 2]] = True

    fpr, tpr, thresholds = roc(s[fit], m[fit])
    positives, negatives = m[fit].sum(), (~m[fit]).sum()
    misses = np.rint((1 - tpr) * positives)
    bounds = _bound(np.rint(fpr * negatives), negatives, misses, positives, delta, confidence)
    threshold = thresholds[int(np.argmax(bounds))]

    above, held = s[~fit] >= threshold, m[~fit]
    counted = _bound(
        (above & ~held).sum(), (~held).sum(), (~above & held).sum(), held.sum(), delta, confidence
    )
    return float(counted)


def epsilon_ceiling(
    num_members: int, num_nonmembers: int, delta: float, confidence: float
) -> float:
    """Return the bound that an attack without a single error would prove with so many trials.

    The counts are trials that are counted: no procedure proves more with that many records, and
    one that spends half of them on its threshold, as :func:`epsilon_lower_bound`, has the ceiling
    of the remaining half. Raises ``ValueError`` as there, or if a count is below 1.
    """
    _check_levels(delta, confidence)
    if min(num_members, num_nonmembers) < 1:
        raise ValueError(f"{num_members} members, {num_nonmembers} non-members: expected ≥ 1 each")
    return float(_bound(0, num_nonmembers, 0, num_members, delta, confidence))


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
    _check_levels(delta, confidence)
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


def label_prior(labels: ArrayLike, owner: ArrayLike, num_targets: int) -> Floats:
    """Return ln of the label's share among a target's members over its share held out, (K, n).

    Add-one smoothing on both. An oracle: it reads the true histograms, the scored record included,
    and so bounds what label-recovery attacks could do rather than what an adversary knows.
    Exactly .5 in AUC where targets and held-out records are exactly class-balanced.

    Parameters
    ----------
    labels, owner
        Shape (n,); ``owner`` as in :func:`epsilon_from_attacks`.
    num_targets
        K, the number of rows.
    """
    own = np.asarray(owner)
    _, code = np.unique(labels, return_inverse=True)

    def share(row: int) -> Floats:
        # count, scale, then divide: balanced histograms of any size give exactly 1
        counts = np.bincount(code[own == row], minlength=code.max() + 1) + 1.0
        return np.asarray(counts * counts.size / counts.sum())

    held_out = share(-1)
    return np.stack([np.log(share(k) / held_out)[code] for k in range(num_targets)])


def raw_features(
    x: NDArray[Any], labels: ArrayLike, owner: ArrayLike, num_targets: int, rng: np.random.Generator
) -> Floats:
    """Return a linear classifier's scores of members against held-out records, (K, n).

    Ridge-penalised logistic regression on the features' leading principal components, centred
    within a label: it finds a difference of means beyond what labels explain, which
    :func:`label_prior` measures, and not every difference. Each of ten folds is scored by what the
    folds before it taught, the first by nothing (progressive validation; Blum, Kalai and Langford,
    COLT 1999), and a score is the rank within its fold and label. So the AUC is .5 in expectation
    without a difference, and its interval covers it as often as it says: in plain cross-validation
    what one fold has more of the others lack, and every pair of folds is counted twice, which
    doubles the variance that an interval for fixed scores expects.

    Parameters
    ----------
    x
        Shape (n, ...), finite.
    labels, owner
        Shape (n,); ``owner`` as in :func:`epsilon_from_attacks`. Any client's members are members.
    num_targets
        K: all rows are the same.
    rng
        Draws the order.

    Returns
    -------
    ndarray
        Records that are not evaluated score 0, as do all where a kind has fewer than two.
    """
    own = np.asarray(owner)
    use = np.flatnonzero(own >= -1)
    held = own[use] >= 0
    _, code = np.unique(np.asarray(labels)[use], return_inverse=True)
    scores = np.zeros(own.size)
    if min(held.sum(), (~held).sum()) >= 2:
        flat = np.asarray(x)[use].reshape(use.size, -1).astype(np.float32)
        scores[use] = _progressive(flat, code, held, rng)
    return np.broadcast_to(scores, (num_targets, own.size))


def untrained(losses: ArrayLike, num_targets: int) -> Floats:
    """Return −loss of the model before training, losses of shape (n,), for every target, (K, n)."""
    scores = -np.asarray(losses, dtype=np.float64)
    return np.broadcast_to(scores, (num_targets, scores.size))


def _check_levels(delta: float, confidence: float) -> None:
    if not 0 <= delta < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"delta={delta}, confidence={confidence}: expected in [0, 1) and in (0, 1)"
        )


def _bound(
    false_positives: ArrayLike,
    negatives: int,
    misses: ArrayLike,
    positives: int,
    delta: float,
    confidence: float,
) -> Floats:
    """Return the larger of the two bounds on ε for error counts, at least 0."""
    level = 1 - (1 - confidence) / 2
    fpr = _upper_rate(false_positives, negatives, level)
    fnr = _upper_rate(misses, positives, level)
    odds = np.maximum((1 - delta - fnr) / fpr, (1 - delta - fpr) / fnr)
    return np.asarray(np.log(np.maximum(odds, 1.0)))


def _upper_rate(events: ArrayLike, trials: int, level: float) -> Floats:
    """Return the one-sided Clopper–Pearson upper end of a binomial rate."""
    count = np.minimum(np.asarray(events, dtype=np.float64), trials)
    spare = np.maximum(trials - count, 1.0)  # the beta law needs one; replaced below
    return np.where(count < trials, betaincinv(count + 1, spare, level), 1.0)


def _progressive(
    flat: NDArray[np.float32],
    code: NDArray[np.int64],
    held: NDArray[np.bool_],
    rng: np.random.Generator,
) -> Floats:
    # dealing along (kind, label) gives every fold nearly equal shares of both
    order = np.lexsort((rng.random(code.size), code, held))
    fold = np.empty(code.size, dtype=np.int64)
    fold[order] = np.arange(code.size) % _FOLDS
    means = np.stack([flat[code == c].mean(axis=0) for c in range(code.max() + 1)])
    centred = flat - means[code]
    scores = np.full(code.size, 0.5)
    if not centred.any():  # principal components of nothing
        return scores
    components = PCA(min(_COMPONENTS, *flat.shape), random_state=int(rng.integers(2**32)))
    reduced = components.fit_transform(StandardScaler().fit_transform(centred))

    for k in range(1, _FOLDS):
        fit = fold < k
        if 0 < held[fit].sum() < fit.sum():
            model = LogisticRegression(C=_STRENGTH, max_iter=1000).fit(reduced[fit], held[fit])
            for label in np.unique(code[fold == k]):
                cell = np.flatnonzero((fold == k) & (code == label))
                rank = rankdata(model.decision_function(reduced[cell]))
                scores[cell] = (rank - 0.5) / cell.size
    return scores
