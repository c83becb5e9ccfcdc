"""What the models of a training show of canary clients' directions, measured as it goes.

G. Andrew et al., One-shot Empirical Privacy Estimation for Federated Learning, ICLR 2024
(arXiv 2302.03098). The auditor knows ``c_j`` and sees every global model ``w^t``, whatever the
adversary's vantage.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedmia.records import Params

Floats = NDArray[np.float64]


@runtime_checkable
class CanaryClients(Protocol):
    """A mod whose last ``count`` clients are canaries."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def weight(self) -> int:
        """The number of examples that each reports."""

    def directions(self, dimension: int, unsent: bool = False) -> NDArray[np.float32]:
        """Return their directions, or as many that nobody sends: (count, dimension)."""


class Watch:
    """The cosines of directions with what each round, and all rounds so far, did to the model.

    One product of (2k, d) and (d, 2) a round, in float32; the directions stay in memory.

    Parameters
    ----------
    canaries
        Whose directions are watched, beside as many that nobody sends.

    Attributes
    ----------
    since_start
        By round t, the cosines of the k sent directions with ``w^t − w^0``, shape (k,); ``None``
        where the model is what it was.
    largest_sent, largest_unsent
        Largest cosines with any round's ``w^t − w^{t−1}`` so far, shape (k,).
    overlap, coherence
        Of the sent directions' Gram matrix: its largest eigenvalue, the most that the squares of
        their cosines with one change can add up to; its largest entry off the diagonal, in absolute
        value. 1 and 0 if they are orthogonal.
    """

    def __init__(self, canaries: CanaryClients) -> None:
        self._canaries = canaries
        self._directions = np.empty((0, 0), np.float32)
        self._first = self._last = np.empty(0, np.float32)
        self.count = canaries.count
        self.overlap, self.coherence = 1.0, 0.0
        self.since_start: dict[int, Floats | None] = {}
        self.largest_sent = np.full(self.count, -np.inf)
        self.largest_unsent = np.full(self.count, -np.inf)

    @property
    def dimension(self) -> int:
        """d, the floating parameters of the model; 0 before one was seen."""
        return self._first.size

    def see(self, server_round: int, params: Params) -> None:
        """Take in ``w^t``, by rounds that ascend; the first one seen is ``w^0``."""
        now = np.concatenate([v.reshape(-1) for v in params.values() if v.dtype.kind == "f"])
        if not self.dimension:
            self._first = self._last = now
            sent, unsent = (self._canaries.directions(now.size, unsent=u) for u in (False, True))
            self._directions = np.concatenate([sent, unsent])
            gram = (sent @ sent.T).astype(np.float64)
            self.overlap = float(np.linalg.eigvalsh(gram)[-1])
            self.coherence = float(np.abs(gram - np.diag(np.diag(gram))).max())
            return
        total, step = self._cosines(now - self._first, now - self._last)
        self._last = now
        self.since_start[server_round] = None if total is None else total[: self.count]
        if step is not None:
            self.largest_sent = np.maximum(self.largest_sent, step[: self.count])
            self.largest_unsent = np.maximum(self.largest_unsent, step[self.count :])

    def _cosines(self, *changes: NDArray[np.float32]) -> list[Floats | None]:
        lengths = [float(np.linalg.norm(change.astype(np.float64))) for change in changes]
        products = (self._directions @ np.stack(changes, axis=1)).astype(np.float64)
        return [
            np.clip(products[:, i] / length, -1.0, 1.0) if length else None
            for i, length in enumerate(lengths)
        ]
