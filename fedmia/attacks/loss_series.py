"""Mean loss over the rounds of training.

The multi-round loss baseline of G. Zhu et al., "FedMIA: An Effective Membership Inference Attack
Exploiting 'All for One' Principle in Federated Learning", CVPR 2025, arXiv 2402.06289, Table 1
("Loss-Series"). It is named there after Gu et al.'s CS-MIA, but is a plain mean without an
attack network.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Attack, Knowledge, View
from fedmia.attacks.series import over_rounds
from fedmia.errors import expect
from fedmia.records import Capability, Examples


@dataclass(frozen=True)
class LossSeries(Attack):
    """Score ``−(1/T) Σ_t ℓ(w_k^t; x, y)``.

    Parameters
    ----------
    model
        ``local``: the target's models ``w_k^t``; ``global``: the models ``w^t`` that a
        participant is sent.
    """

    model: str = "local"

    needs = frozenset({Capability.CLIENT_UPDATES, Capability.MANY_ROUNDS})
    reference = "zhu2025fedmia"

    def __post_init__(self) -> None:
        expect(self.model in ("global", "local"), "model", self.model, "global or local")

    def requirements(self) -> frozenset[Capability]:
        """Return what the chosen models need."""
        if self.model == "local":
            return self.needs
        return frozenset({Capability.GLOBAL_MODEL, Capability.MANY_ROUNDS})

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the negative mean loss, shape (n,)."""
        if self.model == "global":
            return np.asarray(-view.signals.loss_global.mean(axis=0), dtype=np.float64)
        return np.asarray(
            -over_rounds(view, view.signals.loss_local, target).mean(axis=0), dtype=np.float64
        )
