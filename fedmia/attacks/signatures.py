"""Signatures: what a client's updates say of a record, as one vector of fixed length."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import NotApplicableError
from fedmia.signals import Signals

Float64 = NDArray[np.float64]

_TINY = 1e-12
_SPREAD = 1e-6


@dataclass(frozen=True, eq=False)
class Signatures:
    """Signatures of n records under the updates of K clients.

    Attributes
    ----------
    x
        What membership moves, each entry the larger the better the record is fitted,
        (K, n, 3·blocks): ``cos(u, g)``, ``asinh(⟨u, g⟩ / ‖g‖²)`` and the change of the logit gap
        ``φ(w_k^t) − φ(w^t)``.
    c
        What is known of the record before the update, (K, n, 2·blocks): ``φ(w^t)`` and
        ``log ‖g‖``.
    """

    x: Float64
    c: Float64

    def standardised(self, out: "Signatures", of: NDArray[np.bool_] | None = None) -> "Signatures":
        """Return ``asinh((v − mean) / std)`` with mean and std of records that a client lacks.

        Both are taken for each client and entry over the signatures ``out``, or those marked by
        ``of`` (K, n). The logarithmic tails keep a single entry from deciding.
        """
        chosen = np.ones(out.x.shape[:2], dtype=np.bool_) if of is None else of
        return Signatures(_scale(self.x, out.x, chosen), _scale(self.c, out.c, chosen))


def _scale(values: Float64, out: Float64, chosen: NDArray[np.bool_]) -> Float64:
    weights = (chosen / chosen.sum(axis=1, keepdims=True))[..., None]
    mean = (weights * out).sum(axis=1, keepdims=True)
    std = np.sqrt((weights * (out - mean) ** 2).sum(axis=1, keepdims=True))
    return np.asarray(np.arcsinh((values - mean) / np.maximum(std, _SPREAD)))


def blocks_of(present: NDArray[np.bool_], blocks: int) -> list[NDArray[np.int64]]:
    """Divide the rounds in which a client took part, (T,) bool, into blocks in their order.

    There are as many rounds in one as in another, give or take one. With fewer rounds than blocks
    neighbouring blocks share a round, so that signatures have one length whatever a client did.

    Raises
    ------
    NotApplicableError
        If the client took part in no round.
    """
    rounds = np.flatnonzero(present)
    if rounds.size == 0:
        raise NotApplicableError("needs a round in which the target took part")
    edges = [r * rounds.size // blocks for r in range(blocks + 1)]
    return [rounds[a : max(b, a + 1)] for a, b in pairwise(edges)]


def signatures(signals: Signals, columns: NDArray[np.int64], blocks: int) -> Signatures:
    """Return the signatures of the signals' n records under the clients of K columns.

    Entries are means over blocks of rounds; see :func:`blocks_of`. The loss is not among them, as
    ``ℓ = log(1 + e^−φ)`` is the same information on a scale that saturates.
    """
    grad_norm = np.maximum(np.asarray(signals.grad_norm, dtype=np.float64), _TINY)
    gap = np.asarray(signals.logit_gap_global, dtype=np.float64)
    x, c = [], []
    for k in columns:
        moved: list[Float64] = []
        known: list[Float64] = []
        for rounds in blocks_of(signals.present[:, k], blocks):
            g, before = grad_norm[rounds], gap[rounds]
            inner = np.asarray(signals.inner[rounds, k], dtype=np.float64)
            steps = np.arcsinh(inner / g**2)
            change = np.asarray(signals.logit_gap_local[rounds, k]) - before
            cosine = np.asarray(signals.cosine[rounds, k], dtype=np.float64)
            moved += [cosine.mean(axis=0), steps.mean(axis=0), change.mean(axis=0)]
            known += [before.mean(axis=0), np.log(g).mean(axis=0)]
        x.append(np.stack(moved, axis=1))
        c.append(np.stack(known, axis=1))
    return Signatures(np.stack(x), np.stack(c))
