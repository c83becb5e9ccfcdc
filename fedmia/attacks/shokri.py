"""Shadow models teach a classifier how posteriors of members differ from those of others.

R. Shokri, M. Stronati, C. Song, V. Shmatikov, "Membership Inference Attacks Against Machine
Learning Models", IEEE S&P 2017, arXiv 1610.05820. The three largest posteriors as features:
A. Salem, Y. Zhang, M. Humbert, P. Berrang, M. Fritz, M. Backes, "ML-Leaks", NDSS 2019,
arXiv 1806.01246.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import binary_cross_entropy_with_logits

from fedmia.attacks.base import Attack, Knowledge, NotApplicableError, View
from fedmia.attacks.networks import log_odds, seeded, train
from fedmia.attacks.reference_models import last_round, shadow_clients
from fedmia.errors import expect
from fedmia.knowledge import References, Shadows
from fedmia.records import Capability, Examples
from fedmia.seeding import generator
from fedmia.signals import Signals

Float64 = NDArray[np.float64]
Judge = Callable[[Float64], Float64]


@dataclass(frozen=True)
class Shokri(Attack):
    """Score the log-odds of a classifier that was trained on shadow models, one a class.

    Its examples are the auxiliary records under each shadow model, as many that the model was
    trained on as others. Posteriors enter as log-odds ``log(p_j / (1 − p_j))`` from the logits in
    float64, so that confident models do not tie.

    Parameters
    ----------
    features
        ``all``: the true class first, then all others in descending order. (Shokri et al. have
        the order of the classes, in which the true class has no place that classes share.)
        ``top3``: the three largest, in descending order, whatever their classes (Salem et al.).
    model
        ``global``: the last global model seen, after shadow federations; ``local``: the target's
        own last model, after shadow clients that train one round from the same ``w^t``.
    classifier
        ``logistic`` regression, or ``mlp``: a network with one hidden layer of 64.
    per_class
        Members that a class needs among the examples, and non-members likewise, for a classifier
        of its own; records of other classes, unknown ones too, get one that all classes share.
    """

    features: str = "all"
    model: str = "global"
    classifier: str = "logistic"
    per_class: int = 30

    needs = frozenset({Capability.OUTPUTS, Capability.AUXILIARY, Capability.SHADOWS})
    reference = "shokri2017membership"
    cheap = False

    def __post_init__(self) -> None:
        expect(self.features in ("all", "top3"), "features", self.features, "all or top3")
        expect(self.model in ("global", "local"), "model", self.model, "global or local")
        kinds = ("logistic", "mlp")
        expect(self.classifier in kinds, "classifier", self.classifier, "logistic or mlp")
        expect(self.per_class >= 2, "per_class", self.per_class, "at least 2")

    def requirements(self) -> frozenset[Capability]:
        """Return what the chosen model needs."""
        of_client = {Capability.CLIENT_UPDATES, Capability.GLOBAL_MODEL}
        return self.needs | (of_client if self.model == "local" else set())

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> Float64:
        """Return the log-odds of membership, shape (n,)."""
        if knowledge.shadows is None:
            raise NotApplicableError("needs shadow models")
        if self.model == "global":
            auxiliary = view.signals.of(knowledge.auxiliary)
            judges = _judges_of_federations(self, knowledge.shadows, auxiliary, knowledge.seed)
            logits = view.signals.logits(-1)
        else:
            t, k = last_round(view, target)
            models = shadow_clients(view, target, t, knowledge)
            judges = _judges(self, models, knowledge.auxiliary, knowledge.rng("shokri"))
            logits = view.signals.logits(t, k)
        seen = self.posteriors(logits, candidates.y)
        scores = judges[None](seen)
        for label, judge in judges.items():
            of_class = candidates.y == label
            if of_class.any():
                scores[of_class] = judge(seen[of_class])
        return scores

    def posteriors(self, logits: NDArray[np.float32], y: NDArray[np.int64]) -> Float64:
        """Return the features (n, d) of logits (n, classes) with labels (n,)."""
        odds = log_odds_of_classes(np.asarray(logits, dtype=np.float64))
        if self.features == "top3":
            return -np.sort(-odds, axis=1)[:, :3]
        own = np.take_along_axis(odds, y[:, None], axis=1)
        others = odds.copy()
        np.put_along_axis(others, y[:, None], -np.inf, axis=1)
        return np.concatenate([own, -np.sort(-others, axis=1)[:, :-1]], axis=1)


def log_odds_of_classes(z: Float64) -> Float64:
    """Return ``log(p_j / (1 − p_j)) = z_j − logsumexp_{i≠j} z_i`` of logits z, (n, classes)."""
    top = z.argmax(axis=1)[:, None]
    log_p = np.asarray(z - logsumexp(z, axis=1, keepdims=True))
    others = z.copy()
    np.put_along_axis(others, top, -np.inf, axis=1)
    # of the largest, 1 − p may be less than a float can tell from 0
    best = np.take_along_axis(z, top, axis=1) - logsumexp(others, axis=1, keepdims=True)
    np.put_along_axis(log_p, top, -1.0, axis=1)
    odds = log_p - np.log1p(-np.exp(log_p))
    np.put_along_axis(odds, top, best, axis=1)
    return odds


@lru_cache(maxsize=2)
def _judges_of_federations(
    attack: Shokri, shadows: Shadows, auxiliary: Signals, seed: int
) -> Mapping[int | None, Judge]:
    """Return those of all targets; signals stand for their records, which have no hash."""
    rng = generator(seed, "shokri")
    return _judges(attack, shadows.federations(), auxiliary.candidates, rng)


def _judges(
    attack: Shokri, models: References, records: Examples, rng: np.random.Generator
) -> Mapping[int | None, Judge]:
    """Return a classifier for each class that is frequent enough and, as ``None``, for the rest."""
    logits, held = np.asarray(models.logits(records)), np.asarray(models.held(records))
    y = np.tile(records.y, len(logits))
    features, members = attack.posteriors(logits.reshape(len(y), -1), y), held.reshape(-1)
    if members.all() or not members.any():
        raise NotApplicableError("needs shadow models that held some auxiliary records, not all")
    judges: dict[int | None, Judge] = {
        None: _fit(attack.classifier, features, members, np.ones_like(members), rng)
    }
    for label in np.unique(y):
        chosen = y == label
        inside = int(members[chosen].sum())
        if min(inside, int(chosen.sum()) - inside) >= attack.per_class:
            judges[int(label)] = _fit(attack.classifier, features, members, chosen, rng)
    return judges


def _fit(
    classifier: str,
    features: Float64,
    members: NDArray[np.bool_],
    chosen: NDArray[np.bool_],
    rng: np.random.Generator,
) -> Judge:
    """Train on as many members as non-members of those chosen."""
    sides = [np.flatnonzero(chosen & members), np.flatnonzero(chosen & ~members)]
    size = min(len(side) for side in sides)
    rows = np.concatenate([rng.choice(side, size, replace=False) for side in sides])
    x, m = features[rows], members[rows]
    if classifier == "logistic":
        fitted = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky")).fit(
            x, m
        )
        return lambda seen: np.asarray(fitted.decision_function(seen), dtype=np.float64)
    given, labels = torch.from_numpy(x).float(), torch.from_numpy(m).float()
    with seeded(rng):
        network = log_odds((64,), given)
    train(
        network,
        lambda batch: binary_cross_entropy_with_logits(network(given[batch]), labels[batch]),
        len(rows),
        rng,
        epochs=20,
        learning_rate=3e-3,
        batch_size=256,
    )

    def judge(seen: Float64) -> Float64:
        with torch.no_grad():
            return np.asarray(network(torch.from_numpy(seen).float()), dtype=np.float64)

    return judge
