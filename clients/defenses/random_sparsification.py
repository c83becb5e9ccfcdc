"""Random sparsification: of an update, coordinates drawn by lot are sent.

J. Konečný, H. B. McMahan, F. X. Yu, P. Richtárik, A. T. Suresh, D. Bacon, "Federated Learning:
Strategies for Improving Communication Efficiency", 2016, arXiv 1610.05492 ("subsampling").
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from flwr.app import Context, Message

from clients.defenses.compression import Update, arrays, drawn, expect_share, replaced, vector
from clients.defenses.hiding import Handler
from clients.payloads import sparse
from fedmia.signals.lenses import Lens, Transmitted


@dataclass(frozen=True)
class RandomSparsification:
    """Sends each coordinate of the update with the same probability, independently.

    Parameters
    ----------
    share
        p, the probability.
    scaled
        Whether what is sent is divided by p, so that it is the update on average.
    seed
        Of the draws, which differ from client to client and from round to round.
    """

    share: float = 0.1
    scaled: bool = True
    seed: int = 0
    changes_updates: ClassVar = True
    lens: ClassVar[Lens] = Transmitted()

    def __post_init__(self) -> None:
        expect_share(self.share)

    def __call__(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Answer with what is sent of the update; pass on what is no answer to ``train``."""
        rng = drawn(self.seed, "random sparsification", message, context)
        return replaced(message, context, call_next, partial(self._sent, rng=rng))

    def perturbed(self, update: Update, rng: np.random.Generator) -> Update:
        """Return what is sent of an update by these draws."""
        return self._sent(update, rng)[0]

    def _sent(self, update: Update, rng: np.random.Generator) -> tuple[Update, int]:
        flat = vector(update)
        kept = rng.random(flat.size, dtype=np.float32) < self.share
        index = np.flatnonzero(kept & (flat != 0))
        values = flat[index] / np.float32(self.share) if self.scaled else flat[index]
        payload = sparse.encode(index, values, flat.size)
        return arrays(sparse.decode(payload, flat.size), update), len(payload)
