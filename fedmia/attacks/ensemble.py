"""Stacking: one score learnt from those of many attacks.

D. H. Wolpert, "Stacked Generalization", Neural Networks 5(2), 1992. The level-1 data come from
shadow federations as in R. Shokri et al., "Membership Inference Attacks Against Machine Learning
Models", IEEE S&P 2017, arXiv 1610.05820, or from members that the adversary knows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression

from fedmia.attacks.avg_cosine import AvgCosine
from fedmia.attacks.base import Attack, Knowledge, NotApplicableError, View
from fedmia.attacks.calibrated_loss_clients import CalibratedLossClients
from fedmia.attacks.fedmia import FedMIA
from fedmia.attacks.grad_cosine import GradCosine
from fedmia.attacks.grad_diff import GradDiff
from fedmia.attacks.grad_norm import GradNorm
from fedmia.attacks.loss_series import LossSeries
from fedmia.attacks.modified_entropy import ModifiedEntropy
from fedmia.attacks.source_inference import SourceInference
from fedmia.attacks.update_correlation import UpdateCorrelation
from fedmia.attacks.yeom_loss import YeomLoss
from fedmia.errors import expect
from fedmia.knowledge import Shadows
from fedmia.records import Capability, Examples

Float64 = NDArray[np.float64]

COMPONENTS: Mapping[str, Attack] = MappingProxyType(
    {
        "yeom_loss": YeomLoss("global"),
        "yeom_loss_local": YeomLoss("local"),
        "modified_entropy": ModifiedEntropy(),
        "grad_norm": GradNorm(),
        "loss_series": LossSeries("local"),
        "loss_series_global": LossSeries("global"),
        "grad_cosine": GradCosine(),
        "avg_cosine": AvgCosine(),
        "grad_diff": GradDiff(),
        "fedmia_i": FedMIA("loss"),
        "fedmia_ii": FedMIA("cosine"),
        "calibrated_loss_clients": CalibratedLossClients(),
        "source_inference": SourceInference(),
        "update_correlation": UpdateCorrelation(),
    }
)
"""Attacks that need nothing but a view, by the names of their rows."""

_TRAINING = {"shadow": Capability.SHADOWS, "known": Capability.KNOWN_MEMBERS}


@dataclass(frozen=True)
class Ensemble(Attack):
    """Score ``Σ_j β_j Φ⁻¹((r_j − ½) / n)``, the log-odds of a logistic regression.

    ``r_j`` is the rank of the record among the n candidates by component j for the same target, so
    that no component's scale matters and no label is used. What the vantage does not serve is left
    out; two components must remain.

    Parameters
    ----------
    components
        Which attacks are stacked; names of :data:`COMPONENTS`.
    training
        Where β is learnt. ``shadow``: on shadow federations, other records and clients than those
        attacked, once for all targets; ``known``: on the target's members and as many others that
        the adversary knows, which are not evaluated.
    penalty
        Weight of ``½‖β‖²`` against the sum of log losses, in which members and others weigh the
        same.
    """

    components: Sequence[str] = tuple(COMPONENTS)
    training: str = "shadow"
    penalty: float = 1.0

    needs = frozenset({Capability.OUTPUTS})
    reference = "wolpert1992stacked"
    cheap = False

    def __post_init__(self) -> None:
        for name in self.components:
            expect(name in COMPONENTS, "components", name, f"some of {', '.join(COMPONENTS)}")
        expect(len(set(self.components)) >= 2, "components", self.components, "at least two")
        expect(self.training in _TRAINING, "training", self.training, "shadow or known")
        expect(self.penalty > 0, "penalty", self.penalty, "more than 0")
        object.__setattr__(self, "components", tuple(dict.fromkeys(self.components)))

    def requirements(self) -> frozenset[Capability]:
        """Return what learning β needs as well."""
        return self.needs | {_TRAINING[self.training]}

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> Float64:
        """Return the log-odds but for a constant, shape (n,)."""
        columns = normal_scores(self.components, view, target, candidates, knowledge.num_classes)
        if len(columns) < 2:
            raise NotApplicableError(
                f"needs two of its components; the vantage serves {', '.join(columns) or 'none'}"
            )
        features = np.stack(list(columns.values()), axis=1)
        if self.training == "known":
            known = np.concatenate([knowledge.known_members, knowledge.known_nonmembers])
            labels = np.arange(len(known)) < len(knowledge.known_members)
            return np.asarray(features @ _fit(features[known], labels, self.penalty))
        shadows, names = knowledge.shadows, tuple(columns)
        if shadows is None:
            raise NotApplicableError("needs shadow federations")
        beta = _from_shadows(names, shadows, knowledge.num_classes, self.penalty)
        return np.asarray(features @ beta)


def normal_scores(
    names: Sequence[str], view: View, target: int | None, candidates: Examples, num_classes: int
) -> dict[str, Float64]:
    """Return the components' scores that can be had, as normal quantiles of their ranks (n,)."""
    nothing, columns = Knowledge(candidates[:0], num_classes), {}
    for name in names:
        try:
            scores = COMPONENTS[name](view, target, candidates, nothing)
        except NotApplicableError:
            continue
        columns[name] = ndtri((rankdata(scores) - 0.5) / len(scores))
    return columns


@lru_cache(maxsize=4)
def _from_shadows(
    names: tuple[str, ...], shadows: Shadows, num_classes: int, penalty: float
) -> Float64:
    """Return β, learnt from every client of every shadow federation that all components serve."""
    features, labels = [], []
    for federation in shadows.transcripts():
        for position, node in enumerate(federation.nodes):
            columns = normal_scores(
                names, federation.view, node, federation.candidates, num_classes
            )
            member = federation.owner == position
            if len(columns) == len(names) and member.any() and not member.all():
                features.append(np.stack(list(columns.values()), axis=1))
                labels.append(member)
    if not features:
        raise NotApplicableError("needs a shadow federation that serves the same components")
    return _fit(np.concatenate(features), np.concatenate(labels), penalty)


def _fit(features: Float64, labels: NDArray[np.bool_], penalty: float) -> Float64:
    model = LogisticRegression(C=1 / penalty, class_weight="balanced", max_iter=1000)
    return np.asarray(model.fit(features, labels).coef_[0], dtype=np.float64)
