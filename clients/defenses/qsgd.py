"""QSGD: every coordinate is rounded by chance to one of a few levels, so that the mean is kept.

D. Alistarh, D. Grubic, J. Li, R. Tomioka, M. Vojnovic, "QSGD: Communication-Efficient SGD via
Gradient Quantization and Encoding", NeurIPS 2017, arXiv 1610.02132, §3.1, with the buckets of §4.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from flwr.app import Context, Message

from clients.defenses.compression import Float32, Update, arrays, drawn, replaced, vector
from clients.defenses.hiding import Handler
from clients.payloads import levels
from fedmia.errors import expect


@dataclass(frozen=True)
class Qsgd:
    """Sends ``‖v‖₂ · sgn(v_i) · ξ_i`` in place of each coordinate of a bucket v of the update.

    With ``l = ⌊s |v_i| / ‖v‖₂⌋``, ξ_i is ``(l + 1)/s`` with probability ``s |v_i| / ‖v‖₂ − l`` and
    ``l/s`` else, so that the mean is v_i.

    Parameters
    ----------
    levels
        s, at most 127.
    bucket
        Coordinates that share a norm; the larger it is, the fewer bytes and the more noise.
    seed
        Of the draws, which differ from client to client and from round to round.
    """

    levels: int = 7
    bucket: int = 512
    seed: int = 0
    changes_updates: ClassVar = True

    def __post_init__(self) -> None:
        expect(1 <= self.levels <= levels.MOST, "levels", self.levels, f"in 1..{levels.MOST}")
        expect(self.bucket >= 1, "bucket", self.bucket, "at least 1")

    def __call__(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Answer with the quantised update; pass on what is no answer to ``train``."""
        rng = drawn(self.seed, "qsgd", message, context)
        return replaced(message, context, call_next, partial(self._sent, rng=rng))

    def perturbed(self, update: Update, rng: np.random.Generator) -> Update:
        """Return what is sent in an update's place, by these draws."""
        return self._sent(update, rng)[0]

    def _sent(self, update: Update, rng: np.random.Generator) -> tuple[Update, int]:
        flat = vector(update)
        norms, rounded = self._quantised(flat, rng.random(flat.size, dtype=np.float32))
        payload = levels.encode(norms, rounded, self.levels)
        decoded = levels.decode(payload, flat.size, self.levels, self.bucket)
        return arrays(decoded, update), len(payload)

    def _quantised(self, flat: Float32, uniform: Float32) -> tuple[Float32, Float32]:
        """Return the norms, (buckets,), and the levels from −s to s, (d,)."""
        padded = np.zeros((-(-flat.size // self.bucket), self.bucket), np.float32)
        padded.reshape(-1)[: flat.size] = flat
        norms = np.sqrt(np.einsum("bi,bi->b", padded, padded, dtype=np.float64))
        norms = norms.astype(np.float32)
        size = np.abs(padded)
        size /= np.where(norms > 0, norms, 1)[:, None]
        size *= self.levels
        level = size.reshape(-1)[: flat.size]
        level += uniform
        np.floor(level, out=level)
        np.minimum(level, self.levels, out=level)
        return norms, np.copysign(level, flat)
