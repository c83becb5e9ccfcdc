"""One layer's gradients, the layer chosen on a validation user.

J. Li, N. Li, B. Ribeiro, "Effective Passive Membership Inference Attacks in Federated Learning
Against Overparameterized Models", ICLR 2023, OpenReview QsCSLPP55Ku, and its released code: a
feature per layer, biases skipped, the best layer of one user is used on the others.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from fedmia.attacks.base import Attack, Knowledge, NotApplicableError, View
from fedmia.attacks.rounds import check_rounds, chosen, rounds_of
from fedmia.errors import expect
from fedmia.knowledge import ShadowFederation
from fedmia.records import Capability, Examples

Float64 = NDArray[np.float64]


class Products(NamedTuple):
    """Inner products and norms by layer, over rounds: (rounds, layers, n) or, u, (…, 1)."""

    inner: Float64
    g: Float64
    u: Float64

    def of(self, records: NDArray[np.int64]) -> "Products":
        """Return those of some of the records."""
        return Products(self.inner[..., records], self.g[..., records], self.u)


def separation(scores: NDArray[np.float64], members: NDArray[np.bool_]) -> Float64:
    """Return the probability that a member outscores another record, ties half: (…, n) → (…)."""
    m, n = int(members.sum()), members.size
    ranks = rankdata(scores, axis=-1)[..., members].sum(axis=-1)
    return np.asarray((ranks - m * (m + 1) / 2) / (m * (n - m)))


@dataclass(frozen=True)
class LayerSelection(Attack):
    """Score by ``cos(u_l, g_l)`` or ``2c⟨u_l, g_l⟩ − ‖g_l‖²`` in the best layer l.

    ``u_l`` and ``g_l`` are the parts of ``u_k^t`` and ``∇ℓ(w^t; x, y)`` that belong to one weight
    tensor. Layer and scale come from validation users whose records the adversary knows. Li et al.
    set c from the recipe; here it is what their premise asks for, that ``c⟨u_l, g_l⟩`` be
    ``‖g_l‖²`` on average over a validation user's members: ``c = Σ‖g_l‖² / Σ⟨u_l, g_l⟩``, or 0
    where that is negative. The layer is the one with the highest probability that a member
    outscores another record, averaged over validation users.

    Parameters
    ----------
    measure
        ``cosine`` or ``grad_diff``.
    validation
        ``shadow``: all clients of the adversary's own shadow federations, one choice for every
        target; ``known``: the target itself, by those of its records that the adversary knows.
    rounds
        ``mean``: over the rounds that the target took part in; ``last``: the last of them, as
        with a single update.
    """

    measure: str = "cosine"
    validation: str = "shadow"
    rounds: str = "mean"

    needs = frozenset({Capability.CLIENT_UPDATES, Capability.SHADOWS})
    reference = "li2023effective"

    def __post_init__(self) -> None:
        expect(
            self.measure in ("cosine", "grad_diff"), "measure", self.measure, "cosine or grad_diff"
        )
        expect(
            self.validation in ("shadow", "known"), "validation", self.validation, "shadow or known"
        )
        check_rounds(self.rounds)

    def requirements(self) -> frozenset[Capability]:
        """Return what the chosen validation user needs."""
        if self.validation == "shadow":
            return self.needs
        return frozenset({Capability.CLIENT_UPDATES, Capability.KNOWN_MEMBERS})

    def selects(self) -> str:
        """Say on whose records the layer is chosen."""
        return "the layer (and the scale), on clients whose records the adversary knows"

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the score of the chosen layer, shape (n,)."""
        seen = self.products(view, target)
        if self.validation == "known":
            inside, outside = knowledge.known_members, knowledge.known_nonmembers
            known = np.concatenate([inside, outside])
            layer, c = self.choose([(seen.of(known), np.arange(len(known)) < len(inside))])
        else:
            if knowledge.shadows is None:
                raise NotApplicableError("needs shadow training")
            layer, c = _chosen_on_shadows(self, tuple(knowledge.shadows.transcripts()))
        return np.asarray(self.by_layer(seen, c)[layer])

    def products(self, view: View, target: int | None) -> Products:
        """Return what is needed of the target's update, biases left out."""
        signals = view.signals
        k, rows = rounds_of(view, target)
        t = chosen(rows, self.rounds)
        weights = [p for p, name in enumerate(signals.parameters) if not name.endswith("bias")]
        if not weights:
            raise NotApplicableError("needs a parameter that is no bias")
        return Products(
            np.asarray(signals.parameter_inner[t, k][:, weights], dtype=np.float64),
            np.asarray(signals.parameter_norm[t][:, weights], dtype=np.float64),
            np.asarray(signals.parameter_update_norm[t, k][:, weights, None], dtype=np.float64),
        )

    def by_layer(self, seen: Products, c: Float64) -> Float64:
        """Return the score in every layer, (layers, n); ``c`` (layers,)."""
        if self.measure == "grad_diff":
            return np.asarray((2 * c[:, None] * seen.inner - seen.g**2).mean(axis=0))
        length = seen.u * seen.g
        cosine = np.where(length > 0, seen.inner / np.where(length > 0, length, 1), 0)
        return np.asarray(cosine.mean(axis=0))

    def choose(self, users: list[tuple[Products, NDArray[np.bool_]]]) -> tuple[int, Float64]:
        """Return the best layer for these users and their members, and every layer's scale."""
        own = [seen.of(np.flatnonzero(members)) for seen, members in users]
        square = np.sum([(u.g**2).sum(axis=(0, 2)) for u in own], axis=0)
        inner = np.sum([u.inner.sum(axis=(0, 2)) for u in own], axis=0)
        c = np.where(inner > 0, square / np.where(inner > 0, inner, 1), 0)
        auc = [separation(self.by_layer(seen, c), members) for seen, members in users]
        return int(np.argmax(np.mean(auc, axis=0))), c


@lru_cache(maxsize=4)
def _chosen_on_shadows(
    attack: LayerSelection, shadows: tuple[ShadowFederation, ...]
) -> tuple[int, Float64]:
    """Return layer and scales for all targets, from the clients of shadow federations."""
    users = []
    for shadow in shadows:
        for position, node in enumerate(shadow.nodes):
            members = shadow.owner == position
            if node in shadow.view.signals.nodes and 0 < members.sum() < len(members):
                users.append((attack.products(shadow.view, node), members))
    if not users:
        raise NotApplicableError("needs a shadow federation's client with records of its own")
    return attack.choose(users)
