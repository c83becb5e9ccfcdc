"""What LiRA, RMIA and attack R share: the target's model beside models of known membership."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedmia.attacks.base import Attack, Knowledge, NotApplicableError, View
from fedmia.attacks.series import column_of
from fedmia.errors import expect
from fedmia.knowledge import References
from fedmia.records import Capability, Examples
from fedmia.signals import Signals
from fedmia.signals.forward import loss_and_gap

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Panel:
    """The logit gap ``φ = z_y − logsumexp_{j≠y} z_j`` of n records under one target and S others.

    ``gap`` (n,) is that of the target's model; ``gaps`` (S, n) are those of the reference models
    and ``held`` (S, n) says which of them was trained on which record.
    """

    gap: Float64
    gaps: Float64
    held: NDArray[np.bool_]


@dataclass(frozen=True)
class ReferenceAttack(Attack):
    """Compare the target's model with models of which it is known whether they saw the record.

    Parameters
    ----------
    mode
        Who the reference models are. ``online``: shadow models of which some were trained on the
        record, half of them where a federation holds half of the candidates or more, else the
        share that it holds; ``offline``: shadow models without it; ``clients``: the models that
        other clients sent in the same round, which cost nothing.
    model
        Which model is judged in the modes with shadow models. ``global``: the last global model
        seen, beside those of shadow federations; ``local``: the target's own last model, beside
        shadow clients that train one round from the same ``w^t`` on as many records.
    rounds
        With ``clients``: ``all`` averages the scores over the rounds of the target, ``last``
        takes the last one.
    """

    mode: str
    model: str
    rounds: str

    modes: ClassVar[tuple[str, ...]] = ("offline", "clients")
    cheap: ClassVar[bool] = False

    def __post_init__(self) -> None:
        expect(self.mode in self.modes, "mode", self.mode, f"one of {', '.join(self.modes)}")
        expect(self.model in ("global", "local"), "model", self.model, "global or local")
        expect(self.rounds in ("all", "last"), "rounds", self.rounds, "all or last")

    def requirements(self) -> frozenset[Capability]:
        """Return what the chosen reference models need."""
        if self.mode == "clients":
            return self.needs | {Capability.CLIENT_UPDATES, Capability.MANY_CLIENTS}
        of_client = {Capability.CLIENT_UPDATES, Capability.GLOBAL_MODEL}
        shown = of_client if self.model == "local" else {Capability.OUTPUTS}
        return self.needs | {Capability.SHADOWS} | shown

    def panels(
        self,
        view: View,
        target: int | None,
        signals: Signals,
        records: Examples,
        knowledge: Knowledge,
        least: int = 1,
    ) -> list[Panel]:
        """Return one panel, or with ``clients`` one a round, of records whose signals are given.

        Raises
        ------
        NotApplicableError
            If there are fewer than ``least`` reference models, before any is asked.
        """
        if self.mode == "clients":
            panels = list(self._rounds(view, target, signals, least))
            if not panels:
                raise NotApplicableError(f"needs a round with the target and {least} other clients")
            return panels if self.rounds == "all" else panels[-1:]
        models, gap = self._shadows(view, target, signals, knowledge)
        if len(models) < least:
            raise NotApplicableError(f"needs {least} reference models, has {len(models)}")
        return [Panel(gap, gaps_of(models, records), np.asarray(models.held(records)))]

    def _rounds(
        self, view: View, target: int | None, signals: Signals, least: int
    ) -> Iterator[Panel]:
        k = column_of(view, target)
        for t in np.flatnonzero(signals.present[:, k]):
            others = signals.present[t].copy()
            others[k] = False
            if others.sum() >= least:
                gaps = np.asarray(signals.logit_gap_local[t], dtype=np.float64)
                yield Panel(gaps[k], gaps[others], np.zeros_like(gaps[others], dtype=np.bool_))

    def _shadows(
        self, view: View, target: int | None, signals: Signals, knowledge: Knowledge
    ) -> tuple[References, Float64]:
        shadows, online = knowledge.shadows, self.mode == "online"
        if shadows is None:
            raise NotApplicableError("needs shadow models")
        if self.model == "global":
            return shadows.federations(online), np.asarray(signals.logit_gap_global[-1])
        t, k = last_round(view, target)
        return shadow_clients(view, target, t, knowledge, online), np.asarray(
            signals.logit_gap_local[t, k]
        )


def last_round(view: View, target: int | None) -> tuple[int, int]:
    """Return row and column of the last update of the target that was seen.

    Raises
    ------
    NotApplicableError
        If none was.
    """
    k = column_of(view, target)
    rows = np.flatnonzero(view.signals.present[:, k])
    if len(rows) == 0:
        raise NotApplicableError("needs a round in which the target took part")
    return int(rows[-1]), k


def shadow_clients(
    view: View, target: int | None, t: int, knowledge: Knowledge, online: bool = False
) -> References:
    """Return shadow clients that trained as the target did in the visible round of row t."""
    if knowledge.shadows is None:
        raise NotApplicableError("needs shadow models")
    seen = view.transcript[t]
    size = next(u.num_examples for u in seen.updates if u.node_id == target)
    return knowledge.shadows.clients(seen.params, size, online)


def gaps_of(models: References, records: Examples) -> Float64:
    """Return ``φ`` of n records under S models, (S, n)."""
    logits = torch.tensor(models.logits(records))
    y = torch.from_numpy(np.tile(records.y, len(logits)))
    gap: Float64 = loss_and_gap(logits.flatten(0, 1), y)[1].numpy()
    return gap.reshape(len(logits), len(records))
