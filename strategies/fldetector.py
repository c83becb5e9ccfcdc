"""FLDetector: clients whose updates are not what their last ones and the model let expect.

Z. Zhang, X. Cao, J. Jia, N. Z. Gong, "FLDetector: Defending Federated Learning Against Model
Poisoning Attacks via Detecting Malicious Clients", KDD 2022, arXiv 2207.09209.
"""

from collections import Counter, deque
from collections.abc import Collection
from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedmia.errors import expect
from fedmia.seeding import generator
from fedmia.suspicion import Flag
from strategies.lbfgs import hessian_products
from strategies.robust import Robust
from strategies.two_clusters import upper_cluster
from strategies.updates import Float32, Updates


class FLDetector(Robust):
    """Isolate clients whose updates are hard to predict from their own last ones.

    - Client i, which last took part in round r, is expected to send
      ``ĝ_i = g_i^r + H·(w^t − w^r)``; H is the L-BFGS matrix of the last ``window`` changes of the
      model and of the mean update. The mean is over clients that took part in both rounds (the most
      that share one before): who comes and goes changes it as well, and says nothing of H.
    - ``‖ĝ_i − g_i‖`` over the mean of the round's clients is its score of the round.
    - Of clients with ``window`` such scores, the means of the last ``window`` are clustered. If the
      gap statistic tells two clusters, the upper one is isolated from then on.
    - The aggregate is the mean of the others' updates.

    The paper then starts training anew. Here training goes on and the detector starts anew: it
    forgets its history, and needs ``window`` + 2 rounds for the next decision. A client that was
    away for more than ``window`` rounds starts anew as well. Scores are those of the paper times
    the number of clients of the round, for rounds of different numbers to be compared.

    There is no bound on how many are isolated: if most clients are alike in being hard to predict,
    they are. Needs three clients in a round to decide by. Seven passes over the updates or
    their predecessors, and about (2·window² + 4·window)·d multiplications. It keeps the last update
    of each client, ``window`` models and as many changes, (n + 3·window)·d floats in float32.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates.
    window
        N, rounds that H and the scores are made of.
    references
        B, draws behind the gap statistic.
    seed
        These draws follow from it.
    """

    def __init__(
        self, inner: Strategy, window: int = 10, references: int = 20, seed: int = 0
    ) -> None:
        super().__init__(inner)
        expect(window >= 1, "window", window, "at least 1")
        expect(references >= 2, "references", references, "at least 2")
        self.window, self.references, self.seed = window, references, seed
        self.isolated: set[int] = set()
        self._start_anew()

    def check_asked(self, asked: int) -> None:
        """Refuse rounds of fewer than three clients, whose scores cannot be told apart."""
        share = getattr(self.inner, "fraction_train", None)
        allowed = f"so much that at least 3 clients are asked in a round, {asked} are"
        expect(asked >= 3, "inner.fraction_train", share, f"{allowed}: FLDetector compares them")

    def admitted(self, server_round: int, nodes: Collection[int]) -> Collection[int]:
        """Return the nodes that are not isolated."""
        return [node for node in nodes if node not in self.isolated]

    def combine(self, updates: Updates) -> NDArray[np.floating[Any]] | None:
        """Return the mean over clients that are not isolated, (d,); ``None`` if all are."""
        for node, score in self.scores(updates).items():
            self._windows.setdefault(node, deque(maxlen=self.window)).append(score)
        if self._isolate(updates.server_round):
            self._start_anew()
        else:
            self._remember(updates)
        weights = np.array([node not in self.isolated for node in updates.nodes], np.float32)
        return (weights / weights.sum()) @ updates.matrix if weights.any() else None

    def scores(self, updates: Updates) -> dict[int, float]:
        """Return how far clients are from what was expected of them, 1 on average, by node.

        Those of whom nothing can be expected have none.
        """
        rounds = self._rounds(updates)
        if not self._changes or not rounds:
            return {}
        S, Y = (np.array(made, np.float64) for made in zip(*self._changes, strict=True))
        known, now = sorted(set(rounds.values())), updates.model.astype(np.float64)
        moved = hessian_products(S, Y, np.stack([now - self._models[r] for r in known]))
        away: dict[int, float] = {}
        for node, row in zip(updates.nodes, updates.matrix, strict=True):
            if node in rounds:
                surprise = moved[known.index(rounds[node])] + self._last[node][1]
                surprise -= row
                away[node] = float(np.linalg.norm(surprise))
        mean = np.mean(list(away.values()))
        return {node: float(found / mean) if mean else 1.0 for node, found in away.items()}

    def _rounds(self, updates: Updates) -> dict[int, int]:
        """Return the last round of each client whose model of then is kept."""
        seen = {node: self._last[node][0] for node in updates.nodes if node in self._last}
        return {node: number for node, number in seen.items() if number in self._models}

    def _isolate(self, server_round: int) -> bool:
        """Isolate the upper cluster of the scores, if there is one; whether there was."""
        full = [node for node, window in self._windows.items() if len(window) == self.window]
        means = np.array([np.mean(self._windows[node]) for node in full])
        rng = generator(self.seed, "fldetector", server_round)
        upper = upper_cluster(means, self.references, rng)
        for place in np.flatnonzero(upper):
            evidence = {"score": float(means[place]), "others": float(means[~upper].mean())}
            reason = "its updates are not what its last ones let expect"
            self.flags.append(Flag(server_round, full[place], reason, evidence))
            self.isolated.add(full[place])
        return bool(upper.any())

    def _remember(self, updates: Updates) -> None:
        rounds = self._rounds(updates)
        rows = dict(zip(updates.nodes, updates.matrix, strict=True))
        if rounds:
            before = max(Counter(rounds.values()).items(), key=lambda found: found[::-1])[0]
            both = [node for node, number in rounds.items() if number == before]
            change = np.zeros(len(updates.model))
            for node in both:
                change += rows[node]
                change -= self._last[node][1]
            moved = updates.model - self._models[before]
            if moved.any():
                self._changes.append((moved, (change / len(both)).astype(np.float32)))
        self._models[updates.server_round] = updates.model
        while len(self._models) > self.window:
            del self._models[min(self._models)]
        for node, row in rows.items():
            self._last[node] = updates.server_round, row.copy()

    def _start_anew(self) -> None:
        self._models: dict[int, Float32] = {}
        self._changes: deque[tuple[Float32, Float32]] = deque(maxlen=self.window)
        self._last: dict[int, tuple[int, Float32]] = {}
        self._windows: dict[int, deque[float]] = {}
