"""Reputation-weighted aggregation: clients count by how good their updates have been so far.

L. Lyu, X. Xu, Q. Wang, H. Yu, "Collaborative Fairness in Federated Learning", 2020, arXiv
2008.12161 (CFFL), and X. Xu, L. Lyu, "A Reputation Mechanism Is All You Need: Collaborative
Fairness and Adversarial Robustness in Federated Learning", 2020, arXiv 2011.10464 (RFFL).
"""

import logging
import math
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from torch import nn

from fedmia.errors import expect
from fedmia.root import Root
from fedmia.suspicion import Flag
from strategies import quality, standing_file
from strategies.distances import Float64, inner_products
from strategies.robust import Robust
from strategies.standing import Standing, Terms, remember
from strategies.updates import Updates

log = logging.getLogger(__name__)

FEWEST = 3
"""Updates without which nobody is judged: of two that differ either may be the bad one."""


class Reputation(Robust):
    """Return ``Σ r_i·ū_i / Σ r_i`` over the clients that are not isolated.

    ``ū_i`` is an update that is scaled down to the median norm, so that a good name buys no larger
    step. A reputation moves as in RFFL, ``r_i ← decay·r_i + (1 − decay)·quality_i``, when a client
    has answered, and stays when it has not. ``quality_i`` is the weighted geometric mean of three
    parts, each as a share of the median client's:

    - agreement: cosine with the geometric median of the others' updates, weighted by reputation;
    - consistency: cosine with the client's own history, ``h_i ← memory·h_i + ū_i``;
    - gain: what the update takes off the loss on a root set, as CFFL's validation accuracy, where
      ``root_samples`` asks for one.

    A part whose median is below ``least_cosine`` (a gain: not positive) says nothing and is left
    out: late in training, and where each client holds one class, honest clients do not agree. Where
    consistency alone is left, nobody earns reputation: a client may be consistently bad.

    A client that is below ``threshold`` times the mean reputation, or below ``floor``, is isolated
    after its ``grace`` rounds: it is not asked for ``redemption`` rounds, then watched with weight
    0, and back when it is above both. Rejected updates, and those longer than ``largest_norm``
    medians, are flagged and cost reputation.

    With fewer than three updates nobody is judged. Needs more than half of the reputation to be
    honest. About ten passes over the updates and one product of n²·d multiplications; it keeps one
    history a client, n·d floats in float32. A root set adds n passes of its records through the
    model.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates.
    decay, initial, grace, threshold, floor, penalty, redemption
        See :class:`strategies.standing.Terms`.
    agreement, consistency, gain
        Weights of the parts of quality.
    least_cosine
        Median cosine below which a part says nothing, in [0, 1).
    memory
        Share of a history that stays, in [0, 1].
    largest_norm
        In units of the median norm.
    root_samples
        Records of the server's own; 0: none.
    state_file
        Where reputations are kept between runs; ``None``: nowhere.
    """

    def __init__(
        self,
        inner: Strategy,
        decay: float = 0.8,
        initial: float = 0.5,
        agreement: float = 1.0,
        consistency: float = 1.0,
        gain: float = 1.0,
        least_cosine: float = 0.1,
        memory: float = 0.9,
        grace: int = 5,
        threshold: float = 1 / 3,
        floor: float = 0.01,
        penalty: float = 0.5,
        largest_norm: float = 5.0,
        redemption: int | None = 10,
        root_samples: int = 0,
        state_file: str | None = None,
    ) -> None:
        super().__init__(inner)
        self.terms = Terms(decay, initial, grace, threshold, floor, penalty, redemption)
        allowed = "more than 0 and finite"
        expect(0 < agreement < math.inf, "agreement", agreement, allowed)
        for name, value in (("consistency", consistency), ("gain", gain)):
            expect(0 <= value < math.inf, name, value, "at least 0 and finite")
        expect(0 <= least_cosine < 1, "least_cosine", least_cosine, "in [0, 1)")
        expect(0 <= memory <= 1, "memory", memory, "in [0, 1]")
        expect(largest_norm >= 1, "largest_norm", largest_norm, "at least 1")
        expect(root_samples >= 0, "root_samples", root_samples, "at least 0")
        self.weights = {"agreement": agreement, "consistency": consistency, "gain": gain}
        self.least_cosine = least_cosine
        self.memory, self.largest_norm, self.root_samples = memory, largest_norm, root_samples
        self.state_file = None if state_file is None else Path(state_file)
        self.standings: dict[int, Standing] = {}
        if self.state_file:
            standing_file.expect_writable(self.state_file)
        if self.state_file and self.state_file.exists():
            self.standings = standing_file.read(self.state_file)
        self.reputations: list[tuple[int, dict[int, float]]] = []
        self.isolations: list[tuple[int, frozenset[int]]] = []
        self._root: Root | None = None
        self._judged: frozenset[int] = frozenset()

    def equip(self, root: Root) -> None:
        """Take the server's own records."""
        self._root = root

    def check_model(self, model: nn.Module) -> None:
        """Refuse a model that the histories in ``state_file`` are not of.

        Raises
        ------
        ConfigError
            In one line: the file, and the lengths.
        """
        floating = (v for v in model.state_dict().values() if v.is_floating_point())
        size = sum(value.numel() for value in floating)
        for standing in self.standings.values():
            there = size if standing.history is None else len(standing.history)
            allowed = f"updates of {size} coordinates, as of this model; it has {there}"
            expect(there == size, "state_file", self.state_file, allowed)

    def admitted(self, server_round: int, nodes: Collection[int]) -> Collection[int]:
        """Return the nodes that are not isolated, or on probation."""
        return [node for node in nodes if self._standing(node).asked]

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as any robust rule does; a state that cannot be kept stops it first."""
        self._keep()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Apply the rule, and settle who is isolated, and for how long."""
        waiting = [s for s in self.standings.values() if s.isolated and s.wait]
        self._judged, told = frozenset(), len(self.flags)
        found = super().aggregate_train(server_round, replies)
        rejected = {flag.node_id for flag in self.flags[told:]} - self._judged
        for standing in waiting:
            standing.wait = standing.wait and standing.wait - 1
        for node in sorted(rejected):
            standing = self._standing(node)
            standing.judged += 1
            self.terms.punish(standing)
        self._sentence(server_round, {node: {} for node in sorted(rejected)})
        now = self.standings.items()
        self.reputations.append((server_round, {node: s.reputation for node, s in now}))
        self.isolations.append((server_round, frozenset(node for node, s in now if s.isolated)))
        self._keep()
        return found

    def combine(self, updates: Updates) -> NDArray[np.floating[Any]] | None:
        """Return the mean by reputation, (d,); ``None`` if all clients are isolated."""
        standings = [self._standing(node) for node in updates.nodes]
        trusted = np.array([not standing.isolated for standing in standings])
        norms = updates.norms()
        median = float(np.median(norms[trusted] if trusted.any() else norms))
        scale = np.minimum(1.0, np.divide(median, norms, out=np.ones_like(norms), where=norms > 0))
        np.multiply(updates.matrix, scale.astype(np.float32)[:, None], out=updates.matrix)
        if len(updates) >= FEWEST and median > 0:
            self._judge(updates, standings, trusted, norms / median)
        else:
            reason = f"{len(updates)} updates of median norm {median:g}: nobody is judged"
            log.warning("Round %d: %s", updates.server_round, reason)
            self.fallbacks.append((updates.server_round, reason))
        weights = np.array([0.0 if s.isolated else s.reputation for s in standings])
        if not (total := weights.sum()):
            return None
        return np.asarray((weights / total).astype(np.float32) @ updates.matrix)

    def _judge(
        self,
        updates: Updates,
        standings: list[Standing],
        trusted: NDArray[np.bool_],
        lengths: Float64,
    ) -> None:
        """Move the reputations of the clients whose updates these are."""
        voters = trusted if trusted.sum() >= FEWEST else np.ones_like(trusted)
        votes = np.where(voters, [standing.reputation for standing in standings], 0.0)
        votes = votes if votes.any() else voters.astype(np.float64)
        parts = {"agreement": quality.agreement(inner_products(updates.matrix), votes)}
        histories = [standing.history for standing in standings]
        parts["consistency"] = quality.consistency(updates.matrix, histories)
        if self._root:
            parts["gain"] = _gains(self._root, updates)
        told = {
            name: quality.relative(values, voters, 0.0 if name == "gain" else self.least_cosine)
            for name, values in parts.items()
        }
        found = quality.combined([(self.weights[name], values) for name, values in told.items()])
        earns = any(np.isfinite(told[name]).any() for name in told.keys() - {"consistency"})
        said: dict[int, dict[str, float]] = {}
        for place, (node, standing) in enumerate(zip(updates.nodes, standings, strict=True)):
            said[node] = quality.evidence(parts, place)
            if np.isfinite(found[place]):
                self.terms.judge(standing, float(found[place]), earns)
            remember(standing, updates.matrix[place], self.memory)
            if lengths[place] > self.largest_norm:
                self.terms.punish(standing)
                evidence = {"norm_over_median": float(lengths[place]), **said[node]}
                reason = f"the update is longer than {self.largest_norm:g} medians"
                self.flags.append(
                    Flag(updates.server_round, node, reason, evidence, isolated=standing.isolated)
                )
        self._judged = frozenset(updates.nodes)
        self._sentence(updates.server_round, said)

    def _sentence(self, server_round: int, said: dict[int, dict[str, float]]) -> None:
        """Isolate the clients that fell below the limit among these, let back those above it."""
        limit = self.terms.limit(self.standings.values())
        for node, evidence in said.items():
            standing = self.standings[node]
            before = standing.isolated
            if self.terms.isolates(standing, limit):
                figures = {"reputation": standing.reputation, "limit": limit, **evidence}
                reason = "its reputation is too low"
                self.flags.append(Flag(server_round, node, reason, figures, isolated=True))
                log.warning("Round %d: node %d is isolated: %s", server_round, node, figures)
            elif before and not standing.isolated:
                log.info("Round %d: node %d is back: %.3g", server_round, node, standing.reputation)

    def _standing(self, node: int) -> Standing:
        return self.standings.setdefault(node, self.terms.newcomer())

    def _keep(self) -> None:
        if self.state_file:
            standing_file.write(self.state_file, self.standings)


def _gains(root: Root, updates: Updates) -> Float64:
    """Return what each update takes off the loss on the root set, (n,)."""
    before = root.loss(root.at(updates.model))
    return np.array([before - root.loss(root.at(updates.model + row)) for row in updates.matrix])
