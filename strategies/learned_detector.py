"""A detector of anomalies that clients train together, and the threshold for what it rebuilds."""

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedmia.detector_messages import answered, question
from fedmia.detectors import KINDS, Detector, untrained
from fedmia.errors import expect
from fedmia.records import Params
from fedmia.robust_scale import Scale
from fedmia.seeding import generator

log = logging.getLogger(__name__)

Float64 = NDArray[np.float64]


class NotLearnedError(RuntimeError):
    """There is no detector: too few clients, or none that answered."""


@dataclass(frozen=True)
class Learning:
    """How a detector is learned.

    Parameters
    ----------
    kind
        ``autoencoder`` or ``vae``.
    hidden, latent
        Widths of its layers; see :mod:`fedmia.detectors`.
    rounds
        Questions to each training client; after each, weights are their coordinate-wise median.
    validation
        Share of the clients that do not train it, and set the threshold.
    sigmas, quantile
        The threshold is the larger of mean + ``sigmas`` standard deviations and this quantile of
        the validation clients' errors.
    seed
        Of the first weights and of who validates.
    timeout_s
        How long to wait for an answer; ``None`` waits for ever.
    """

    kind: str = "autoencoder"
    hidden: int = 32
    latent: int = 4
    rounds: int = 10
    validation: float = 0.25
    sigmas: float = 2.0
    quantile: float = 0.99
    seed: int = 0
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        expect(self.kind in KINDS, "kind", self.kind, f"one of {', '.join(KINDS)}")
        for name in ("hidden", "latent"):
            expect(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        expect(self.rounds >= 1, "detector_rounds", self.rounds, "at least 1")
        expect(0 < self.validation < 1, "validation", self.validation, "in (0, 1)")
        expect(0 <= self.sigmas < np.inf, "sigmas", self.sigmas, "at least 0 and finite")
        expect(0 < self.quantile <= 1, "quantile", self.quantile, "in (0, 1]")
        limit = self.timeout_s
        expect(limit is None or limit > 0, "timeout_s", limit, "null or more than 0")


@dataclass(frozen=True, eq=False)
class Learned:
    """A trained detector and the error beyond which an update is suspicious."""

    detector: Detector
    threshold: float


def learn(
    how: Learning, grid: Grid, rows: Mapping[int, Sequence[Float64]], scales: Mapping[int, Scale]
) -> Learned:
    """Have clients train a detector on their own updates of clean rounds.

    Parameters
    ----------
    how
        Settings.
    grid
        Carries the questions.
    rows
        By node, the z-scores (f,) of its updates in these rounds, as the server saw them: of the
        validation clients its own eyes set the threshold, not their word.
    scales
        By round, what the clients are to standardise their features by.

    Raises
    ------
    NotLearnedError
        If fewer than three clients are known, or in some step none answers.
    """
    nodes = sorted(rows)
    if len(nodes) < 3:
        raise NotLearnedError(f"{len(nodes)} clients to learn from: expected at least 3")
    order = generator(how.seed, "anomaly validation").permutation(nodes).tolist()
    held = max(1, min(round(how.validation * len(nodes)), len(nodes) - 2))
    validating, training = order[:held], sorted(order[held:])
    features = len(rows[nodes[0]][0])
    detector = untrained(how.kind, features, how.hidden, how.latent, how.seed)
    for step in range(how.rounds):
        _train_once(how, grid, detector, training, scales, step)
    errors = detector.errors(np.concatenate([np.stack(rows[node]) for node in validating]))
    return Learned(detector, threshold(errors, how.sigmas, how.quantile))


def threshold(errors: Float64, sigmas: float, quantile: float) -> float:
    """Return ``max(mean + sigmas·σ, the quantile)`` of clean errors, (n,)."""
    return float(max(errors.mean() + sigmas * errors.std(), np.quantile(errors, quantile)))


def _train_once(
    how: Learning,
    grid: Grid,
    detector: Detector,
    nodes: Sequence[int],
    scales: Mapping[int, Scale],
    step: int,
) -> None:
    shape = (how.kind, how.hidden, how.latent)
    messages = [question(node, detector, shape, scales, step) for node in nodes]
    found: list[Params] = []
    received = deepcopy(detector)
    for reply in grid.send_and_receive(messages, timeout=how.timeout_s):
        node = reply.metadata.src_node_id
        if reply.has_error():
            log.warning("anomaly detector: node %d: %s", node, reply.error.reason)
            continue
        try:
            received.load(answered(reply))
        except (ValueError, TypeError, EOFError) as error:
            log.warning("anomaly detector: node %d drops out: %s", node, error)
            continue
        found.append(received.params())
    if not found:
        raise NotLearnedError(f"none of {len(nodes)} clients trained the detector")
    names = found[0]
    detector.load({name: np.median([f[name] for f in found], axis=0) for name in names})
