"""FoolsGold: clients whose updates point the same way over the rounds share one vote.

C. Fung, C. J. M. Yoon, I. Beschastnikh, "Mitigating Sybils in Federated Learning Poisoning", 2018,
arXiv 1808.04866.
"""

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedmia.errors import expect
from fedmia.suspicion import Flag
from strategies.directions import Float64, cosines, norms
from strategies.robust import Robust
from strategies.updates import Float32, Updates

_LEAST = 1e-5
"""An α that the arithmetic cannot tell from 0; dividing by the largest would blow it up."""


class FoolsGold(Robust):
    """Average the updates, weighted by how little a client's history is like another's.

    ``H_i`` is the sum of all updates of client i, of the rounds in which it took part; ``cs_ij``
    the cosine of ``H_i`` and ``H_j``; ``v_i = max(0, max_j cs_ij)``.

    - Pardoning: where ``v_i < v_j``, ``cs_ij ← cs_ij·v_i/v_j``: being like a sybil is no
      proof of being one.
    - ``α_i = 1 − max(0, max_j cs_ij)``, divided by the largest.
    - ``α_i ← κ·(ln(α_i/(1 − α_i)) + 0.5)``, clipped to [0, 1].
    - The aggregate is ``Σ α_i u_i / Σ α_i``. If all weights are 0 the round is abandoned. A client
      that answers alone has weight 1.

    Clients are compared with those who answer in the same round. The rule assumes that honest
    clients differ from one another: with IID records it punishes them for being alike. It does
    nothing against an attacker alone, and needs no number of clients.

    Five passes over the updates or the histories and one product of n²·d multiplications. It keeps
    one history a client, n·d floats in float32.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates.
    confidence
        κ, how steeply weights fall between 1 and 0.
    """

    def __init__(self, inner: Strategy, confidence: float = 1.0) -> None:
        super().__init__(inner)
        allowed = "more than 0 and finite"
        expect(0 < confidence < np.inf, "confidence", confidence, allowed)
        self.confidence = confidence
        self._places: dict[int, int] = {}
        self._histories: Float32 | None = None

    def combine(self, updates: Updates) -> NDArray[np.floating[Any]] | None:
        """Return the weighted mean, (d,); ``None`` if no client has a weight."""
        history = self._added(updates)
        alike = cosines(history, norms(history))
        weights = vote(alike, self.confidence)
        np.fill_diagonal(alike, 0.0)
        for i in np.flatnonzero(weights == 0):
            evidence = {"largest cosine": float(alike[i].max())}
            reason = "its updates over the rounds are too like another client's"
            self.flags.append(Flag(updates.server_round, updates.nodes[i], reason, evidence))
        if not weights.any():
            return None
        return np.asarray((weights / weights.sum()).astype(np.float32) @ updates.matrix)

    def _added(self, updates: Updates) -> Float32:
        """Add the updates to the histories of their senders, and return these, (n, d)."""
        new = [node for node in updates.nodes if node not in self._places]
        self._places |= {node: len(self._places) + i for i, node in enumerate(new)}
        if new:
            room = np.zeros((len(new), updates.matrix.shape[1]), np.float32)
            kept = self._histories
            self._histories = room if kept is None else np.concatenate([kept, room])
        assert self._histories is not None
        places = [self._places[node] for node in updates.nodes]
        for place, row in zip(places, updates.matrix, strict=True):
            self._histories[place] += row
        everybody = places == list(range(len(self._histories)))
        return self._histories if everybody else self._histories[places]


def vote(cosine: Float64, confidence: float) -> Float64:
    """Return the weights in [0, 1] of clients, (n,).

    Parameters
    ----------
    cosine
        ``cs`` of all pairs, (n, n).
    confidence
        κ.
    """
    others = cosine.copy()
    np.fill_diagonal(others, 0.0)
    v = others.max(axis=1)
    pardoned = np.divide(v[:, None], v, out=np.ones_like(others), where=v[:, None] < v)
    alpha = 1.0 - (others * pardoned).max(axis=1)
    if alpha.max() < _LEAST:
        return np.zeros(len(alpha))
    alpha /= alpha.max()
    with np.errstate(divide="ignore"):
        logit = np.log(alpha) - np.log1p(-alpha)
    return np.asarray(np.clip(confidence * (logit + 0.5), 0.0, 1.0))
