"""RMIA: how often a record's likelihood ratio beats that of records from the population.

S. Zarifzadeh, P. Liu, R. Shokri, "Low-Cost High-Power Membership Inference Attacks", ICML 2024,
arXiv 2312.03262.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from fedmia.attacks.base import Knowledge, NotApplicableError, View
from fedmia.attacks.reference_models import Panel, ReferenceAttack
from fedmia.errors import expect
from fedmia.records import Capability, Examples

Float64 = NDArray[np.float64]

_GRID = np.linspace(0, 1, 11)


@dataclass(frozen=True)
class RMIA(ReferenceAttack):
    """Score ``Pr_z[LR(x, z) ≥ γ]``, ``LR = (Pr(x|θ) / Pr(x)) / (Pr(z|θ) / Pr(z))``.

    ``Pr(x|θ) = p_y`` under the target's model. Offline ``Pr(x) = ½[(1 + a) P_out + (1 − a)]`` with
    ``P_out`` the mean of ``p_y`` over the reference models without x. The population z are the
    adversary's auxiliary records, who are neither members nor evaluated, under the same models
    and the same formula; one that every reference model held is left out.

    All x meet the same z, so that the score has the order of ``Pr(x|θ) / Pr(x)`` up to ties: γ
    and the number of z decide only where scores are tied.

    Parameters
    ----------
    mode, model, rounds
        As in :class:`ReferenceAttack`; there is no online mode.
    gamma
        γ, above 0.
    a
        In [0, 1]. ``null`` takes from 0, 0.1, …, 1 what tells the members of one reference model
        best (mean AUC over all of them, each attacked with the others); the target is not asked.
        What other clients trained on is not known: with ``clients``, a number is needed.
    """

    mode: str = "offline"
    model: str = "global"
    rounds: str = "all"
    gamma: float = 1.0
    a: float | None = None

    needs = frozenset({Capability.AUXILIARY})
    reference = "zarifzadeh2024lowcost"

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.gamma > 0, "gamma", self.gamma, "more than 0")
        expect(self.a is None or 0 <= self.a <= 1, "a", self.a, "in [0, 1], or null to tune it")
        known = self.a is not None or self.mode != "clients"
        expect(known, "a", self.a, "a number in [0, 1] where other clients are the references")

    def selects(self) -> str:
        """Say by what ``a`` is tuned."""
        return "a, by attacking the adversary's own reference models" if self.a is None else ""

    def shadows_needed(self, of_federation: float, of_client: float) -> int:
        """Return 2 where ``a`` is tuned: one is attacked with the others."""
        return 2 if self.a is None else int(self.mode != "clients")

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> Float64:
        """Return the share of z that x beats, shape (n,), in [0, 1]."""
        z = knowledge.auxiliary
        least = 2 if self.a is None else 1
        of_x = self.panels(view, target, view.signals, candidates, knowledge, least)
        of_z = self.panels(view, target, view.signals.of(z), z, knowledge, least)
        a = tune(of_z[0]) if self.a is None else self.a
        scores = []
        for x_panel, z_panel in zip(of_x, of_z, strict=True):
            ratio_x, ratio_z = log_ratio(x_panel, a), log_ratio(z_panel, a)
            if np.isnan(ratio_x).any() or np.isnan(ratio_z).all():
                raise NotApplicableError("needs a reference model without the record for each")
            population = np.sort(ratio_z[~np.isnan(ratio_z)])
            beaten = np.searchsorted(population, ratio_x - np.log(self.gamma), side="right")
            scores.append(beaten / len(population))
        return np.asarray(np.mean(scores, axis=0), dtype=np.float64)


def log_ratio(panel: Panel, a: float) -> Float64:
    """Return ``log(Pr(x|θ) / Pr(x))``, (n,); NaN where every reference model held the record."""
    out = ~panel.held
    P = np.where(out, np.exp(_log_p(panel.gaps)), 0)
    count = out.sum(axis=0)
    P_out = np.where(count > 0, P.sum(axis=0) / np.maximum(count, 1), np.nan)
    return _log_p(panel.gap) - _log_evidence(P_out, a)


def tune(panel: Panel) -> float:
    """Return the a of the grid with which reference models are attacked best by the others.

    Raises
    ------
    NotApplicableError
        If no reference model has members and non-members among the records.
    """
    out = ~panel.held
    P = np.where(out, np.exp(_log_p(panel.gaps)), 0)
    count = out.sum(axis=0) - out
    P_out = np.where(count > 0, (P.sum(axis=0) - P) / np.maximum(count, 1), np.nan)
    known = ~np.isnan(P_out)
    attacked = [
        r for r in range(len(P)) if (known & panel.held)[r].any() and (known & out)[r].any()
    ]
    if not attacked:
        raise NotApplicableError("needs reference models that held some auxiliary records")
    mean_auc = []
    for a in _GRID:
        ratio = _log_p(panel.gaps) - _log_evidence(np.maximum(P_out, 0), a)
        mean_auc.append(
            np.mean([_auc(ratio[r][known[r]], panel.held[r][known[r]]) for r in attacked])
        )
    return float(_GRID[np.argmax(np.round(mean_auc, 12))])


def _log_p(gap: Float64) -> Float64:
    return np.asarray(-np.logaddexp(0, -gap), dtype=np.float64)


def _log_evidence(P_out: Float64, a: float) -> Float64:
    """Return ``log ½[(1 + a) P_out + (1 − a)]``."""
    evidence = 0.5 * ((1 + a) * P_out + (1 - a))
    return np.asarray(np.log(np.maximum(evidence, np.finfo(np.float64).tiny)), dtype=np.float64)


def _auc(scores: Float64, members: NDArray[np.bool_]) -> float:
    inside, outside = members.sum(), (~members).sum()
    ranks = rankdata(scores)[members].sum()
    return float((ranks - inside * (inside + 1) / 2) / (inside * outside))
