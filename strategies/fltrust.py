"""FLTrust: clients are trusted as far as they agree with an update of the server's own.

X. Cao, M. Fang, J. Liu, N. Z. Gong, "FLTrust: Byzantine-robust Federated Learning via Trust
Bootstrapping", NDSS 2021, arXiv 2012.13995.
"""

from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedmia.errors import expect
from fedmia.root import Root
from fedmia.suspicion import Flag
from strategies.directions import cosines_with, norms, unit
from strategies.robust import Robust
from strategies.updates import Updates


class FLTrust(Robust):
    """Return ``Σ TS_i·(‖u_0‖/‖u_i‖)·u_i / Σ TS_i`` with ``TS_i = max(0, cos(u_i, u_0))``.

    ``u_0`` is what the server's own training on its root records, by the clients' recipe, makes of
    the same model. All clients get its norm, so nobody counts by size. Who points away from it
    counts for nothing; if all do, or if ``u_0`` is zero, the round is abandoned.

    Holds against any number of clients as long as the root records are like theirs: an honest
    client whose records are of other classes loses its weight too. Needs no number of clients.
    Three passes over the updates, n·d multiplications each, and the server's training; no state.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates.
    root_samples
        Number of root records, held-out ones that no attack is asked about.
    """

    def __init__(self, inner: Strategy, root_samples: int = 100) -> None:
        super().__init__(inner)
        allowed = "at least 1: FLTrust compares clients with the server's own update"
        expect(root_samples >= 1, "root_samples", root_samples, allowed)
        self.root_samples = root_samples
        self._root: Root | None = None

    def equip(self, root: Root) -> None:
        """Take the server's records, before the first round."""
        self._root = root

    def combine(self, updates: Updates) -> NDArray[np.floating[Any]] | None:
        """Return the mean of the updates in proportion to trust, (d,); ``None`` without any.

        Raises
        ------
        RuntimeError
            If no root records were given.
        """
        if self._root is None:
            raise RuntimeError("FLTrust has no root records: expected equip(root) before a round")
        own = self._root.flat(
            self._root.update(self._root.at(updates.model), updates.server_round)
        ).astype(np.float64)
        if not (length := float(np.linalg.norm(own))):
            return None
        lengths = norms(updates.matrix)
        cosine = cosines_with(updates.matrix, lengths, own)
        for i in np.flatnonzero(cosine <= 0):
            evidence = {"cosine with the server's update": float(cosine[i])}
            reason = "the update points away from the server's own"
            self.flags.append(Flag(updates.server_round, updates.nodes[i], reason, evidence))
        trust = np.maximum(cosine, 0.0)
        if not trust.any():
            return None
        weights = trust / trust.sum() * length * unit(lengths)
        return np.asarray(weights.astype(np.float32) @ updates.matrix)
