"""Top-k sparsification: of an update, the coordinates that moved furthest are sent.

S. U. Stich, J.-B. Cordonnier, M. Jaggi, "Sparsified SGD with Memory", NeurIPS 2018,
arXiv 1809.07599, Algorithm 1, here with one update a round in place of one gradient a step.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from flwr.app import Context, Message
from numpy.typing import NDArray

from clients.defenses.compression import (
    Float32,
    Update,
    arrays,
    corrected,
    expect_share,
    remember,
    replaced,
    vector,
)
from clients.defenses.hiding import Handler
from clients.payloads import sparse
from fedmia.errors import expect
from fedmia.signals.lenses import Lens, Transmitted

LAYER, WHOLE = "layer", "global"
_STATE = "top_k"
_TINY = float(np.finfo(np.float32).smallest_subnormal)


@dataclass(frozen=True)
class TopK:
    """Sends the largest coordinates of the update in an answer to a ``train`` message.

    With error feedback, what is left out is kept in the client's state and added to its next
    update, so that nothing is lost for good: all that was sent and what is kept is the sum of all
    updates. Without it, the model is moved by a biased estimate.

    Parameters
    ----------
    share
        Of the coordinates, rounded up, that are sent.
    scope
        ``layer``: that share of every array; ``global``: of all arrays together.
    whole_below
        Arrays with fewer elements than this are sent whole, outside of the share.
    error_feedback
        Whether what is left out is kept for the next update.
    """

    share: float = 0.1
    scope: str = LAYER
    whole_below: int = 1000
    error_feedback: bool = True
    changes_updates: ClassVar = True
    lens: ClassVar[Lens] = Transmitted()

    def __post_init__(self) -> None:
        expect_share(self.share)
        expect(self.scope in (LAYER, WHOLE), "scope", self.scope, f"{LAYER} or {WHOLE}")
        expect(self.whole_below >= 0, "whole_below", self.whole_below, "at least 0")

    def __call__(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Answer with what is sent of the update; pass on what is no answer to ``train``."""
        return replaced(message, context, call_next, partial(self._change, context))

    def perturbed(self, update: Update, rng: np.random.Generator) -> Update:
        """Return what is sent of a client's first update."""
        return self._sent(update)[0]

    def _change(self, context: Context, update: Update) -> tuple[Update, int]:
        wanted = corrected(_STATE, context, update) if self.error_feedback else update
        sent, size = self._sent(wanted)
        if self.error_feedback:
            remember(_STATE, context, wanted, sent)
        return sent, size

    def _sent(self, update: Update) -> tuple[Update, int]:
        small = {k: v for k, v in update.items() if v.size < self.whole_below}
        large = {k: v for k, v in update.items() if k not in small}
        flat = vector(large)
        layers = [v.size for v in large.values()] if self.scope == LAYER else [flat.size]
        starts = np.cumsum([0, *layers[:-1]])
        chosen = [
            a + self._largest(flat[a : a + d]) for a, d in zip(starts, layers, strict=False) if d
        ]
        index = np.concatenate([np.empty(0, np.intp), *chosen])
        payload = sparse.encode(index, flat[index], flat.size)
        whole = vector(small)
        sent = arrays(sparse.decode(payload, flat.size), large)
        sent |= arrays(whole, small)
        return {name: sent[name] for name in update}, len(payload) + whole.nbytes

    def _largest(self, values: Float32) -> NDArray[np.intp]:
        """Return where the largest values in size are, ascending; of equal ones, the first.

        Zeros are not among them: they are what is not sent.
        """
        count = math.ceil(self.share * len(values))
        size = np.abs(values)
        least = np.partition(size, -count)[-count]
        index = np.flatnonzero(size >= max(least, _TINY))
        if len(index) > count:
            equal = np.flatnonzero(size[index] == least)
            index = np.delete(index, equal[count - len(index) :])
        return index
