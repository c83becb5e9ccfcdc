"""LiRA: a likelihood ratio between models that were and were not trained on the record.

N. Carlini, S. Chien, M. Nasr, S. Song, A. Terzis, F. Tramèr, "Membership Inference Attacks From
First Principles", IEEE S&P 2022, arXiv 2112.03570.
"""

from dataclasses import dataclass, replace
from math import ceil
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Knowledge, NotApplicableError, View
from fedmia.attacks.reference_models import Panel, ReferenceAttack
from fedmia.errors import expect
from fedmia.records import Examples

Float64 = NDArray[np.float64]

_VARIANCE_FLOOR = 1e-8
_LEAST_FOR_A_VARIANCE = 8
_MOVES = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
_VIEWS = tuple((move, flip) for move in _MOVES for flip in (False, True))
"""At most 18 views of an image: moved by up to a pixel, and each of these flipped."""


@dataclass(frozen=True)
class LiRA(ReferenceAttack):
    """Score how much better ``φ_obs`` fits models with the record than models without it.

    Online (Alg. 1): ``log N(φ_obs; μ_in, σ_in²) − log N(φ_obs; μ_out, σ_out²)``. Offline and with
    other clients as reference models (Eq. 4): ``(φ_obs − μ_out) / σ_out``, which has the order of
    ``Λ = 1 − Pr[Z > φ_obs]``. ``φ = z_y − logsumexp_{j≠y} z_j = log(p_y / (1 − p_y))`` from the
    logits in float64. μ is the median, as in the authors' code (the paper has the mean).

    Queries and rounds are averaged: log-densities as in the authors' code, or ``(φ − μ) / σ``
    (Stouffer's way to combine one-sided tests).

    Online, with ``m`` models that hold the record and ``o`` that do not, ``d = μ_in − μ_out`` of
    few models is not taken at face value. Where ``m < 8``, ``μ_in = μ_out + d̄ + w (d − d̄)`` with
    the mean shift ``d̄`` of all records, ``w = τ² / (τ² + v)``, ``v = σ_in² / m + σ_out² / o`` and
    ``τ² = max(0, mean((d − d̄)² − v))``: empirical Bayes, which the paper does not have. A record
    that no model holds has ``w = 0``; where no record is in two models, ``σ_in = σ_out``.

    Parameters
    ----------
    mode, model, rounds
        As in :class:`ReferenceAttack`. In mode ``local`` traces of earlier rounds are in ``w^t``
        and so in the target's and the reference models alike.
    sided
        Without ``in`` models: ``one``, the paper's Eq. 4; ``two``: ``−log N(φ_obs; μ_out,
        σ_out²)``, which the authors' code plots as its offline attack and which also takes a
        record that fits unusually badly for a member.
    variance
        ``pooled``: one σ² for all records, from how each record's values scatter around their own
        mean (the authors' ``fix_variance`` has the scatter between records in it as well);
        ``per_example``: each record has its own, from 8 models at least, online 8 with the record
        and 8 without it.
    queries
        Views of each record, the record itself among them, in [1, 18]. Images are flipped and
        moved by a pixel; to other records noise is added, the same for all.
    query_noise
        Standard deviation of that noise, in the units of the features.
    """

    mode: str = "offline"
    model: str = "global"
    rounds: str = "all"
    sided: str = "one"
    variance: str = "pooled"
    queries: int = 1
    query_noise: float = 0.1

    modes: ClassVar[tuple[str, ...]] = ("online", "offline", "clients")
    needs = frozenset()
    reference = "carlini2022membership"

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.sided in ("one", "two"), "sided", self.sided, "one or two")
        expect(
            self.variance in ("pooled", "per_example"),
            "variance",
            self.variance,
            "pooled or per_example",
        )
        expect(1 <= self.queries <= len(_VIEWS), "queries", self.queries, "in [1, 18]")
        expect(self.query_noise > 0, "query_noise", self.query_noise, "more than 0")

    def shadows_needed(self, of_federation: float, of_client: float) -> int:
        """Return how many models the variance asked for takes, none where clients serve."""
        if self.mode == "clients":
            return 0
        if self.mode == "online" and self.variance == "per_example":
            return ceil(self._each() / (of_federation if self.model == "global" else of_client))
        return self._least()

    def _each(self) -> int:
        return _LEAST_FOR_A_VARIANCE if self.variance == "per_example" else 2

    def _least(self) -> int:
        return self._each() * (2 if self.mode == "online" else 1)

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> Float64:
        """Return ``log Λ``, or what has its order, shape (n,)."""
        scores, least = [], self._least()
        for i, query in enumerate(self._views(candidates, knowledge)):
            signals = view.signals.of(query) if i else view.signals
            panels = self.panels(view, target, signals, query, knowledge, least)
            if i == 0:
                held = [panel.held for panel in panels]
                for of in held:
                    self._check_enough(of)
            # whoever was trained on a record was trained on what its views are views of
            scores += [
                self._evidence(replace(panel, held=of))
                for panel, of in zip(panels, held, strict=True)
            ]
        return np.asarray(np.mean(scores, axis=0), dtype=np.float64)

    def _evidence(self, panel: Panel) -> Float64:
        mu_out, var_out = self._normal(panel.gaps, ~panel.held)
        if self.mode == "online":
            mu_in, var_in = self._normal(panel.gaps, panel.held)
            var_in = np.where(np.isnan(var_in), var_out, var_in)
            mu_in = mu_out + self._shift(mu_in - mu_out, var_in, var_out, panel.held)
            return _log_density(panel.gap, mu_in, var_in) - _log_density(panel.gap, mu_out, var_out)
        if self.sided == "two":
            return -_log_density(panel.gap, mu_out, var_out)
        return (panel.gap - mu_out) / np.sqrt(var_out)

    def _check_enough(self, held: NDArray[np.bool_]) -> None:
        """Refuse to judge where too few models hold a record, or too few do not."""
        each, outside = self._each(), (~held).sum(axis=0).min()
        if outside < each:
            raise NotApplicableError(
                f"needs {each} reference models without each record, some have {outside}"
            )
        if self.mode != "online":
            return
        inside = held.sum(axis=0)
        if self.variance == "per_example" and inside.min() < each:
            raise NotApplicableError(
                f"needs {each} reference models that hold each record, some have {inside.min()}"
            )
        if not inside.any():
            raise NotApplicableError("needs reference models that hold records in question")

    def _shift(
        self, d: Float64, var_in: Float64, var_out: Float64, held: NDArray[np.bool_]
    ) -> Float64:
        """Return ``μ_in − μ_out``, (n,), drawn towards its mean where few models hold a record."""
        inside, outside = held.sum(axis=0), (~held).sum(axis=0)
        mean = np.nanmean(d)
        error = var_in / np.maximum(inside, 1) + var_out / outside
        spread = max(0.0, float(np.nanmean((d - mean) ** 2 - error)))
        share = np.where(inside < _LEAST_FOR_A_VARIANCE, spread / (spread + error), 1.0)
        return np.asarray(mean + np.where(inside > 0, share * (d - mean), 0.0))

    def _normal(self, gaps: Float64, of: NDArray[np.bool_]) -> tuple[Float64, Float64]:
        """Return location and variance, each (n,), of the chosen models; NaN where undefined."""
        count, each = of.sum(axis=0), np.arange(of.shape[1])
        ordered = np.sort(np.where(of, gaps, np.nan), axis=0)  # NaN comes last
        mu = (ordered[np.maximum(count - 1, 0) // 2, each] + ordered[count // 2, each]) / 2
        mean = np.where(of, gaps, 0).sum(axis=0) / np.maximum(count, 1)
        square = np.where(of, (gaps - mean) ** 2, 0).sum(axis=0)
        free = np.maximum(count - 1, 0)
        if self.variance == "pooled":
            square, free = np.full_like(square, square.sum()), np.full_like(free, free.sum())
        variance = np.where(free > 0, square / np.maximum(free, 1), np.nan)
        return mu, np.maximum(variance, _VARIANCE_FLOOR)

    def _views(self, candidates: Examples, knowledge: Knowledge) -> list[Examples]:
        x = candidates.x
        if x.ndim == 4:
            return [
                candidates if i == 0 else Examples(_moved(x, *_VIEWS[i]), candidates.y)
                for i in range(self.queries)
            ]
        shape = (self.queries - 1, 1, *x.shape[1:])
        noise = self.query_noise * knowledge.rng("lira").standard_normal(shape)
        return [candidates, *(Examples((x + e).astype(x.dtype), candidates.y) for e in noise)]


def _log_density(phi: Float64, mu: Float64, variance: Float64) -> Float64:
    density = -0.5 * (phi - mu) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)
    return np.asarray(density, dtype=np.float64)


def _moved(x: NDArray[np.float32], by: tuple[int, int], flip: bool) -> NDArray[np.float32]:
    """Return images (n, channels, height, width) moved by pixels, borders repeated."""
    down, right = by
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    moved = padded[:, :, 1 - down : 1 - down + height, 1 - right : 1 - right + width]
    return np.ascontiguousarray(moved[..., ::-1] if flip else moved)
