"""How high a record's score would be had it not been trained on, regressed on the record itself.

M. Bertran, S. Tang, M. Kearns, J. Morgenstern, A. Roth, Z. S. Wu, "Scalable Membership Inference
Attacks via Quantile Regression", NeurIPS 2023, arXiv 2307.03694.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import KFold
from threadpoolctl import threadpool_limits

from fedmia.attacks.base import Attack, Knowledge, NotApplicableError, View
from fedmia.attacks.reference_models import last_round
from fedmia.errors import expect
from fedmia.records import Capability, Examples
from fedmia.signals import Signals

Float64 = NDArray[np.float64]
Regressor = Callable[[Examples, Float64], Float64]

_LEAST = 50
_FOLDS = 3
_FLOOR = 0.05  # of the overall standard deviation: no record is predicted better


@dataclass(frozen=True)
class QuantileRegression(Attack):
    """Score how far ``φ(x, y)`` lies above what non-members like (x, y) have.

    The adversary fits the distribution of ``φ = z_y − logsumexp_{j≠y} z_j`` over its auxiliary
    records, who are no members, under the model that is judged, as a function of features and
    label. No shadow model is trained. The regression is gradient boosting; the paper's is a
    network, or boosting for tables.

    Parameters
    ----------
    distribution
        ``gaussian``: score ``(φ − μ(x, y)) / σ(x, y)``, where σ is fitted to residuals of records
        that μ was not fitted to; ``quantile``: score ``φ − q(x, y)`` with the quantile at
        ``level``, whose threshold 0 has a false-positive rate of about ``1 − level``.
    level
        Of the quantile, in (0, 1).
    model
        ``global``: the last global model seen; ``local``: the target's own last model.
    components
        Records of more features are replaced by as many principal components, at least 1.
    iterations
        Trees of the boosting, at least 1.
    """

    distribution: str = "gaussian"
    level: float = 0.95
    model: str = "global"
    components: int = 32
    iterations: int = 60

    needs = frozenset({Capability.GLOBAL_MODEL, Capability.AUXILIARY})
    reference = "bertran2023scalable"
    cheap = False

    def __post_init__(self) -> None:
        kinds = ("gaussian", "quantile")
        expect(
            self.distribution in kinds, "distribution", self.distribution, "gaussian or quantile"
        )
        expect(0 < self.level < 1, "level", self.level, "in (0, 1)")
        expect(self.model in ("global", "local"), "model", self.model, "global or local")
        expect(self.components >= 1, "components", self.components, "at least 1")
        expect(self.iterations >= 1, "iterations", self.iterations, "at least 1")

    def requirements(self) -> frozenset[Capability]:
        """Return what the chosen model needs."""
        if self.model == "global":
            return self.needs
        return frozenset({Capability.CLIENT_UPDATES, Capability.AUXILIARY})

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
        where = None if self.model == "global" else last_round(view, target)
        auxiliary = view.signals.of(knowledge.auxiliary)
        seed = int(knowledge.rng("quantile_regression").integers(2**31))
        phi = self.gaps(view.signals, where)
        with threadpool_limits(1):  # threads that wait for each other cost more than they bring
            regressor = _regression(self, auxiliary, where, knowledge.num_classes, seed)
            return regressor(candidates, phi)

    def gaps(self, signals: Signals, where: tuple[int, int] | None) -> Float64:
        """Return ``φ`` under the last global model or, given row and column, a client's, (n,)."""
        if where is None:
            return np.asarray(signals.logit_gap_global[-1], dtype=np.float64)
        return np.asarray(signals.logit_gap_local[where], dtype=np.float64)


@lru_cache(maxsize=2)
def _regression(
    attack: QuantileRegression,
    auxiliary: Signals,
    where: tuple[int, int] | None,
    num_classes: int,
    seed: int,
) -> Regressor:
    records, phi = auxiliary.candidates, attack.gaps(auxiliary, where)
    flat = records.x.reshape(len(records), -1).astype(np.float64)
    reduce = None
    if flat.shape[1] > attack.components:
        size = min(attack.components, len(records) - 1)
        reduce = PCA(size, svd_solver="full").fit(flat)

    def inputs(given: Examples) -> Float64:
        x = given.x.reshape(len(given), -1).astype(np.float64)
        x = x if reduce is None else reduce.transform(x)
        return np.concatenate([x, np.eye(num_classes)[given.y]], axis=1)

    def fit(x: Float64, value: Float64, **loss: Any) -> Any:
        trees = HistGradientBoostingRegressor(
            max_iter=attack.iterations,
            max_leaf_nodes=8,
            learning_rate=0.05,
            max_bins=64,
            early_stopping=False,
            random_state=0,
            **loss,
        )
        return trees.fit(x, value)

    x = inputs(records)
    if attack.distribution == "quantile":
        q = fit(x, phi, loss="quantile", quantile=attack.level)
        return lambda given, seen: np.asarray(seen - q.predict(inputs(given)), dtype=np.float64)

    residual = np.empty_like(phi)
    for rest, fold in KFold(_FOLDS, shuffle=True, random_state=seed).split(x):
        residual[fold] = phi[fold] - fit(x[rest], phi[rest]).predict(x[fold])
    mu = fit(x, phi)
    # E|N(0, σ²)| = σ √(2/π)
    sigma = fit(x, np.sqrt(np.pi / 2) * np.abs(residual))
    floor = max(_FLOOR * float(residual.std()), np.finfo(np.float64).tiny)

    def score(given: Examples, seen: Float64) -> Float64:
        rows = inputs(given)
        scale = np.maximum(sigma.predict(rows), floor)
        return np.asarray((seen - mu.predict(rows)) / scale, dtype=np.float64)

    return score
