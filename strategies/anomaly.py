"""Anomaly detection on updates, around any strategy that sees them.

S. Li, Y. Cheng, W. Wang, Y. Liu, T. Chen, "Learning to Detect Malicious Clients for Robust
Federated Learning", 2020 (arXiv 2002.00211), for the learned detectors; the plain one compares each
feature of an update with the median of its round.
"""

import logging
import math
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedmia.arrays import to_params
from fedmia.detectors import KINDS
from fedmia.errors import expect
from fedmia.robust_scale import Scale
from fedmia.suspicion import Flag
from fedmia.update_features import Float64
from strategies.learned_detector import Learned, Learning, NotLearnedError, learn
from strategies.open_updates import expect_open
from strategies.profiles import Profiles
from strategies.updates import Layout, read
from strategies.usual_form import oddities

log = logging.getLogger(__name__)

ROBUST_Z = "robust_z"

FEWEST = 4
"""Updates of a round of which one can stand out: the median of three has one beside it."""

_EVIDENCE = 3


class Anomaly(Strategy):
    """Flag clients whose updates stand out, and leave them out of what the wrapped strategy gets.

    An update that is not finite, too large or malformed, and an answer whose records are not those
    of most, which no strategy could average, are rejected, and their clients flagged. Others are
    described by features (:class:`fedmia.update_features.Profile`), which are standardised by
    the median and the median absolute deviation of their round. A client is suspicious

    - with ``robust_z``, if at least ``agreeing`` features are more than ``threshold`` from 0;
    - with ``autoencoder`` or ``vae``, if a detector rebuilds them with an error beyond that of
      clean clients. It is trained by the clients on the rounds of the warm-up, with the mod
      ``anomaly``; where that fails, ``robust_z`` decides in that round, and ``fallbacks`` says why.

    The warm-up is declared clean: nobody is flagged in it but for what is no update. ``flags`` has
    the evidence. A round with fewer than four updates flags nobody; ``fallbacks`` has it. Where all
    clients are isolated, nobody is asked and the model stays; ``abandoned`` has it.

    State: two sketches of the model and one of each client's last update, some 14 kB a client with
    85,000 parameters; with a learned detector the features of the warm-up too. Updates are read
    one by one, so that one row of d numbers is held. Cost a round: about twelve passes over each
    update, in cache array by array.

    Parameters
    ----------
    inner
        Any strategy but one that hides updates.
    rounds
        Of training.
    detector
        ``robust_z``, ``autoencoder`` or ``vae``.
    threshold, agreeing
        Of ``robust_z``; see above.
    floor
        Least spread of a feature, in its own units: logarithms, cosines and shares of a norm.
    warmup_rounds
        Clean rounds at the start.
    isolate
        Whether suspicious updates are left out, and their clients not asked for a while. If not,
        they are flagged and nothing else happens.
    isolation_rounds
        For how many rounds a client is not asked; ``None``: for good.
    hidden, latent, detector_rounds, validation, sigmas, quantile, seed, timeout_s
        Of the learned detectors; see :class:`strategies.learned_detector.Learning`.
    """

    rejects_updates: ClassVar[bool] = True
    """Updates that are not finite do not end training."""

    def __init__(
        self,
        inner: Strategy,
        rounds: int,
        detector: str = ROBUST_Z,
        threshold: float = 6.0,
        agreeing: int = 2,
        floor: float = 0.05,
        warmup_rounds: int = 5,
        isolate: bool = True,
        isolation_rounds: int | None = 5,
        hidden: int = 32,
        latent: int = 4,
        detector_rounds: int = 10,
        validation: float = 0.25,
        sigmas: float = 2.0,
        quantile: float = 0.99,
        seed: int = 0,
        timeout_s: float | None = None,
    ) -> None:
        expect_open(inner)
        kinds = (ROBUST_Z, *KINDS)
        expect(detector in kinds, "detector", detector, f"one of {', '.join(kinds)}")
        expect(0 < threshold < math.inf, "threshold", threshold, "more than 0 and finite")
        expect(agreeing >= 1, "agreeing", agreeing, "at least 1")
        expect(0 < floor < math.inf, "floor", floor, "more than 0 and finite")
        learned = detector != ROBUST_Z
        least = 2 if learned else 0
        allowed = f"at least {least}, and below rounds={rounds}, or nobody is ever flagged"
        expect(least <= warmup_rounds < rounds, "warmup_rounds", warmup_rounds, allowed)
        fits = isolation_rounds is None or isolation_rounds >= 1
        expect(fits, "isolation_rounds", isolation_rounds, "null or at least 1")
        self.inner, self.detector = inner, detector
        self.threshold, self.agreeing, self.floor = threshold, agreeing, floor
        self.warmup_rounds, self.isolate = warmup_rounds, isolate
        self.isolation_rounds = isolation_rounds
        kind = detector if learned else "autoencoder"
        sizes = (hidden, latent, detector_rounds)
        self.learning = Learning(kind, *sizes, validation, sigmas, quantile, seed, timeout_s)
        self.learned: Learned | None = None
        self.flags: list[Flag] = []
        self.fallbacks: list[tuple[int, str]] = []
        self.abandoned: list[tuple[int, str]] = []
        self._profiles = Profiles()
        self._until: dict[int, float] = {}
        self._scales: dict[int, Scale] = {}
        self._rows: dict[int, list[Float64]] = {}
        self._layout: Layout | None = None

    @property
    def needs_mod(self) -> str:
        """The mod that trains the detector, where there is one to be trained."""
        return "" if self.detector == ROBUST_Z else "anomaly"

    @property
    def voids_epsilon(self) -> str:
        """Why no strategy inside can promise an ε; empty where it can."""
        if self.isolate:
            return (
                "which clients are left out depends on all updates, so that one client moves the "
                "sum by more than its own (strategy.isolate=true)"
            )
        if self.needs_mod:
            return (
                "clients are sent a detector that is learned from updates without noise "
                f"(strategy.detector={self.detector})"
            )
        return ""

    @property
    def noted(self) -> str:
        """What an ε of a strategy inside does not cover; empty where there is none."""
        if not getattr(self.inner, "adds_noise", False):
            return ""
        why = self.voids_epsilon
        return f"no ε: {why}" if why else "flags are made of updates without noise: ε is not theirs"

    def check_asked(self, asked: int) -> None:
        """Refuse rounds in which nobody can stand out."""
        allowed = f"a strategy that asks at least {FEWEST} clients a round; {asked} are asked"
        expect(asked >= FEWEST, "detector", self.detector, allowed)

    def summary(self) -> None:
        """Log the detector and the strategy behind it."""
        log.info("Anomaly (%s, isolate=%s) around:", self.detector, self.isolate)
        self.inner.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask those whom the wrapped strategy asks, without the isolated ones."""
        self._layout = None
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        asked = self._admitted(server_round, messages)
        if not asked:
            if messages:
                self._abandon(server_round, f"all {len(messages)} clients are isolated")
            return []
        (model,) = asked[0].content.array_records.values()
        self._layout = Layout(to_params(model))
        self._profiles.begin(self._layout.model)
        if self.needs_mod and self.learned is None and server_round > self.warmup_rounds:
            self._learn(server_round, grid)
        return asked

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hand the wrapped strategy what is neither rejected nor, with ``isolate``, suspicious."""
        layout, self._layout = self._layout, None
        if layout is None:
            return None, None
        replies, features = list(replies), {}
        odd = oddities(replies, getattr(self.inner, "weighted_by_key", "num-examples"))
        flagged = [Flag(server_round, node, reason) for node, reason in odd.items()]
        usual = [reply for reply in replies if reply.metadata.src_node_id not in odd]
        for reply in sorted(usual, key=lambda r: r.metadata.src_node_id):
            updates, rejected = read(layout, server_round, [reply])
            flagged += rejected
            for node, row in zip(updates.nodes, updates.matrix, strict=True):
                features[node] = self._profiles.of(node, row)
        flagged += self._suspicious(server_round, features)
        for flag in flagged:
            log.warning("Round %d: node %d: %s", server_round, flag.node_id, flag.reason)
        self.flags += flagged
        out = {flag.node_id for flag in flagged if flag.isolated}
        kept = [r for r in replies if r.has_error() or r.metadata.src_node_id not in out]
        goes_on = getattr(self.inner, "goes_on", False)  # its noise is released all the same
        if out and all(reply.has_error() for reply in kept) and not goes_on:
            self._abandon(server_round, f"all {len(out)} updates are rejected or suspicious")
            return None, None
        return self.inner.aggregate_train(server_round, kept)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as the wrapped strategy does, without the isolated clients."""
        messages = self.inner.configure_evaluate(server_round, arrays, config, grid)
        return self._admitted(server_round, messages)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Aggregate as the wrapped strategy does."""
        return self.inner.aggregate_evaluate(server_round, replies)

    def _admitted(self, server_round: int, messages: Iterable[Message]) -> list[Message]:
        until = self._until
        return [m for m in messages if until.get(m.metadata.dst_node_id, 0) < server_round]

    def _suspicious(self, server_round: int, features: dict[int, Float64]) -> list[Flag]:
        if len(features) < FEWEST:
            if server_round > self.warmup_rounds:
                reason = f"{len(features)} updates, none stands out of fewer than {FEWEST}"
                self._fall_back(server_round, f"{reason}: nobody is flagged")
            return []
        scale = Scale.of(np.stack(list(features.values())), self.floor)
        z = {node: scale.z(row) for node, row in features.items()}
        if server_round <= self.warmup_rounds:
            self._keep(server_round, scale, z)
            return []
        found = []
        for node, row in z.items():
            reason, evidence = self._judged(row)
            if reason:
                found.append(Flag(server_round, node, reason, evidence, self.isolate))
                if self.isolate:
                    self._profiles.forget(node)
                    after = self.isolation_rounds
                    self._until[node] = math.inf if after is None else server_round + after
        return found

    def _keep(self, server_round: int, scale: Scale, z: dict[int, Float64]) -> None:
        """Remember clean updates to learn from; those of the first round have no aggregate."""
        if self.needs_mod and self._profiles.settled:
            self._scales[server_round] = scale
            for node, row in z.items():
                self._rows.setdefault(node, []).append(row)

    def _judged(self, z: Float64) -> tuple[str, dict[str, float]]:
        """Return why an update is suspicious and the figures behind it; nothing if it is not."""
        if self.learned is None:
            beyond = int((np.abs(z) > self.threshold).sum())
            reason = f"{beyond} features beyond {self.threshold:g} robust deviations of the median"
            own: dict[str, float] = {"features_beyond": beyond, "threshold": self.threshold}
            return (reason, own | self._top(np.abs(z), z)) if beyond >= self.agreeing else ("", {})
        (parts,) = self.learned.detector.parts(z[None])
        error, limit = float(parts.mean()), self.learned.threshold
        own = {"reconstruction_error": error, "threshold": limit}
        reason = f"reconstruction error {error:.3g} beyond {limit:.3g}, that of clean clients"
        return (reason, own | self._top(parts, z)) if error > limit else ("", {})

    def _top(self, sizes: Float64, z: Float64) -> dict[str, float]:
        """Return the z-scores of the features that matter most."""
        assert self._profiles.profile is not None
        places = self._profiles.profile.most(sizes, _EVIDENCE)
        return {f"z of {name}": float(z[place]) for name, place in places.items()}

    def _learn(self, server_round: int, grid: Grid) -> None:
        try:
            self.learned = learn(self.learning, grid, self._rows, self._scales)
        except NotLearnedError as error:
            self._fall_back(server_round, f"no {self.detector}: {error}; {ROBUST_Z} decides")
            return
        log.info("The %s flags errors beyond %.3g", self.detector, self.learned.threshold)

    def _fall_back(self, server_round: int, reason: str) -> None:
        log.warning("Round %d: %s", server_round, reason)
        self.fallbacks.append((server_round, reason))

    def _abandon(self, server_round: int, reason: str) -> None:
        log.warning("Round %d is abandoned: %s", server_round, reason)
        self.abandoned.append((server_round, reason))
