"""How high a record's score would be had it not been trained on, regressed on the record itself.

M. Bertran, S. Tang, M. Kearns, J. Morgenstern, A. Roth, Z. S. Wu, "Scalable Membership Inference
Attacks via Quantile Regression", NeurIPS 2023, arXiv 2307.03694.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesRegressor
from threadpoolctl import threadpool_limits

from fedmia.attacks.base import Knowledge, NotApplicableError, View
from fedmia.attacks.one_model import OneModelAttack
from fedmia.attacks.reference_models import last_round
from fedmia.errors import expect
from fedmia.records import Capability, Examples
from fedmia.signals import Signals

Float64 = NDArray[np.float64]

_LEAST = 50
_LEAST_TREES = 20  # so that each record is outside the sample of some
_LEAF = 5
_FLOOR = 0.05  # of the overall standard deviation: no record is predicted better


@dataclass(frozen=True)
class QuantileRegression(OneModelAttack):
    """Score how far ``φ(x, y)`` lies above what non-members like (x, y) have.

    The adversary fits the distribution of ``φ = z_y − logsumexp_{j≠y} z_j`` over its auxiliary
    records, who are no members, under the model that is judged, as a function of features and
    label: ``φ = μ(x, y) + σ(x, y) ε``. No shadow model is trained. The paper's regression is a
    network that predicts μ and log σ, or boosting for tables. Here two forests of extremely
    randomised trees (P. Geurts, D. Ernst, L. Wehenkel, Machine Learning 63:3-42, 2006) predict
    them for all targets together: μ, and σ from how far μ errs on records that its trees did not
    see.

    Parameters
    ----------
    distribution
        ``gaussian``: score ``(φ − μ(x, y)) / σ(x, y)``; ``quantile``: score ``φ − q(x, y)`` with
        ``q = μ + σ q_ε`` and ``q_ε`` the quantile of ``ε`` at ``level``, whose threshold 0 has a
        false-positive rate of about ``1 − level``.
    level
        Of the quantile, in (0, 1).
    model
        ``global``: the last global model seen; ``local``: the target's own last model.
    components
        Records of more features are replaced by as many principal components, at least 1.
    trees
        In each forest, at least 20.
    """

    distribution: str = "gaussian"
    level: float = 0.95
    model: str = "global"
    components: int = 32
    trees: int = 40

    needs = frozenset({Capability.OUTPUTS, Capability.AUXILIARY})
    reference = "bertran2023scalable"
    cheap = False

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = ("gaussian", "quantile")
        expect(
            self.distribution in kinds, "distribution", self.distribution, "gaussian or quantile"
        )
        expect(0 < self.level < 1, "level", self.level, "in (0, 1)")
        expect(self.components >= 1, "components", self.components, "at least 1")
        expect(self.trees >= _LEAST_TREES, "trees", self.trees, f"at least {_LEAST_TREES}")

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> Float64:
        """Return the score, shape (n,).

        Raises
        ------
        NotApplicableError
            If there are fewer than 50 auxiliary records.
        """
        if len(knowledge.auxiliary) < _LEAST:
            raise NotApplicableError(
                f"needs {_LEAST} auxiliary records, has {len(knowledge.auxiliary)}"
            )
        row, phi = 0, np.asarray(view.signals.logit_gap_global[-1], dtype=np.float64)
        if self.model == "local":
            t, k = last_round(view, target)
            row = int(view.signals.present[:, :k].any(axis=0).sum())
            phi = np.asarray(view.signals.logit_gap_local[t, k], dtype=np.float64)
        seed = int(knowledge.rng("quantile_regression").integers(2**31))
        fitted = _regression(self, view.signals, view.signals.of(knowledge.auxiliary), seed)
        excess = (phi - fitted.mu[row]) / fitted.sigma[row]
        if self.distribution == "gaussian":
            return np.asarray(excess)
        return np.asarray(
            (excess - np.quantile(fitted.epsilon[row], self.level)) * fitted.sigma[row]
        )


class Fitted(NamedTuple):
    """What is expected of the candidates, (targets, n), and ``ε`` of auxiliary records."""

    mu: Float64
    sigma: Float64
    epsilon: Float64


@lru_cache(maxsize=2)
def _regression(
    attack: QuantileRegression, signals: Signals, auxiliary: Signals, seed: int
) -> Fitted:
    """Return the regressions for every client that was seen, or for the global model alone."""
    phi = _gaps(auxiliary, attack.model)
    with threadpool_limits(1):  # threads that wait for each other cost more than they bring
        known, judged = _inputs(auxiliary.candidates, signals.candidates, attack.components)
        mu, typical = _forest(attack.trees, seed, known, phi, judged)
        error = phi - typical
        # E|N(0, σ²)| = σ √(2/π)
        sigma, spread = _forest(attack.trees, seed, known, np.sqrt(np.pi / 2) * abs(error), judged)
    floor = np.maximum(_FLOOR * error.std(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return Fitted(mu, np.maximum(sigma, floor), error / np.maximum(spread, floor))


def _gaps(signals: Signals, model: str) -> Float64:
    """Return ``φ`` under the last global model, (1, n), or each client's last one, (clients, n)."""
    if model == "global":
        return np.asarray(signals.logit_gap_global[-1:], dtype=np.float64)
    last = [(np.flatnonzero(seen)[-1], k) for k, seen in enumerate(signals.present.T) if seen.any()]
    return np.stack([np.asarray(signals.logit_gap_local[t, k], np.float64) for t, k in last])


def _forest(
    trees: int, seed: int, x: Float64, values: Float64, judged: Float64
) -> tuple[Float64, Float64]:
    """Return predictions for other records, and for x by the trees that did not see them.

    Both are (targets, …), as are the values.
    """
    forest = ExtraTreesRegressor(
        trees,
        min_samples_leaf=_LEAF,
        max_features=1.0,
        bootstrap=True,
        oob_score=True,
        random_state=seed,
    ).fit(x, values.T.squeeze())
    predicted, own = forest.predict(judged), forest.oob_prediction_
    return predicted.reshape(len(judged), -1).T, own.reshape(len(x), -1).T


def _inputs(known: Examples, judged: Examples, components: int) -> tuple[Float64, Float64]:
    """Return features and labels of both, the features reduced as suits the first."""
    flat = [r.x.reshape(len(r), -1).astype(np.float64) for r in (known, judged)]
    if flat[0].shape[1] > components:
        reduce = PCA(min(components, len(known) - 1), svd_solver="full").fit(flat[0])
        flat = [reduce.transform(x) for x in flat]
    classes = np.arange(max(known.y.max(), judged.y.max()) + 1)
    known_x, judged_x = (
        np.concatenate([x, r.y[:, None] == classes], axis=1)
        for x, r in zip(flat, (known, judged), strict=True)
    )
    return known_x, judged_x
