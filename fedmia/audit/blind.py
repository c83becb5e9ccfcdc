"""The blind scores that attacks have to beat: they never look at a trained model.

Where one of them finds members, the split gives them away, and the AUCs of the attacks beside it
are confounded.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from fedmia.metrics import Floats

_FOLDS = 10
_COMPONENTS = 64  # principal components of the features that a linear classifier is given
_STRENGTH = 0.1  # inverse of the classifier's L2 penalty


def label_prior(labels: ArrayLike, owner: ArrayLike, num_targets: int) -> Floats:
    """Return ln of the label's share among a target's members over its share held out, (K, n).

    Add-one smoothing on both. An oracle: it reads the true histograms, the scored record included,
    and so bounds what label-recovery attacks could do rather than what an adversary knows.
    Exactly .5 in AUC where targets and held-out records are exactly class-balanced.

    Parameters
    ----------
    labels, owner
        Shape (n,); ``owner`` as in :func:`fedmia.audit.epsilon_from_attacks`.
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


def label_prior_in_turn(
    labels: ArrayLike, owner: ArrayLike, num_targets: int, rng: np.random.Generator
) -> Floats:
    """Return what :func:`label_prior` says of records that its histograms do not hold, (K, n).

    For members that were drawn by the toss of a coin each: then labels say nothing about them, and
    an oracle that reads the very histograms it is judged on would still find the coins' luck. The
    records are dealt to ten folds; those of a fold are ranked by the histograms of the folds before
    it, as in :func:`raw_features`, whose parameters these are.
    """
    own = np.asarray(owner)
    use = np.flatnonzero(own >= -1)
    held = own[use] >= 0
    _, code = np.unique(np.asarray(labels)[use], return_inverse=True)
    fold = rng.permutation(use.size) % _FOLDS
    scores = np.zeros(own.size)
    for k in range(min(_FOLDS, use.size)):
        inside, outside = (
            np.bincount(code[(fold < k) & kind], minlength=code.max() + 1) + 1.0
            for kind in (held, ~held)
        )
        now = np.flatnonzero(fold == k)
        ratio = np.log(inside / inside.sum()) - np.log(outside / outside.sum())
        scores[use[now]] = (rankdata(ratio[code[now]]) - 0.5) / now.size
    return np.broadcast_to(scores, (num_targets, own.size))


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
        Shape (n,); ``owner`` as in :func:`fedmia.audit.epsilon_from_attacks`. Any client's members
        are members.
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
        with threadpool_limits(1):  # threads that wait for each other cost more than they bring
            scores[use] = _progressive(flat, code, held, rng)
    return np.broadcast_to(scores, (num_targets, own.size))


def untrained(losses: ArrayLike, num_targets: int) -> Floats:
    """Return −loss of the model before training, losses of shape (n,), for every target, (K, n)."""
    scores = -np.asarray(losses, dtype=np.float64)
    return np.broadcast_to(scores, (num_targets, scores.size))


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
