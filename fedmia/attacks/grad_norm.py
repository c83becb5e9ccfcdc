"""Gradient norm: a record that was trained on no longer pulls at the weights.

M. Nasr, R. Shokri, A. Houmansadr, "Comprehensive Privacy Analysis of Deep Learning: Passive and
Active White-box Inference Attacks against Centralized and Federated Learning", IEEE S&P 2019,
arXiv 1812.00910 (the gradient's norm tells members from others without supervision).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Knowledge, View
from fedmia.attacks.one_model import OneModelAttack
from fedmia.errors import expect
from fedmia.records import Capability, Examples


@dataclass(frozen=True)
class GradNorm(OneModelAttack):
    """Score ``−‖∇_w ℓ(w; x, y)‖₂`` over all layers or the last alone.

    Parameters
    ----------
    layers
        ``all``: every trainable parameter; ``last``: the last linear layer, in closed form
        ``‖p − e_y‖ · sqrt(‖h‖² + 1)`` with the activations ``h`` that enter it, at the cost of a
        forward pass.
    model
        ``global``: the last global model seen, the same score for every target;
        ``local``: the target's own last model.
    """

    layers: str = "all"
    model: str = "global"

    needs = frozenset({Capability.GLOBAL_MODEL})
    reference = "nasr2019comprehensive"

    def __post_init__(self) -> None:
        expect(self.layers in ("all", "last"), "layers", self.layers, "all or last")
        super().__post_init__()

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the negative norm, shape (n,), at most 0."""
        seen, last = view.signals, self.layers == "last"
        return -self.last(
            view,
            target,
            lambda: seen.last_layer_norm_global if last else seen.grad_norm,
            lambda: seen.last_layer_norm_local if last else seen.grad_norm_local,
        )
