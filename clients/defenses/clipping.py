"""Clipping at the client, for strategies that add noise where they cannot see updates.

H. B. McMahan, D. Ramage, K. Talwar, L. Zhang, "Learning Differentially Private Recurrent Language
Models", ICLR 2018, with the clipping of Algorithm 1 moved to where the update is. Under secure
aggregation the server cannot do it; that clients do is then theirs to be trusted with.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from flwr.app import Context, Message
from torch import nn

from clients.defenses.hiding import Handler
from clients.defenses.updates import Update, answered, clipped, expect_clip, room
from fedmia.errors import expect
from fedmia.secagg.cohort import Cohort
from fedmia.secagg.protocol import Protocol


@dataclass(frozen=True)
class Clipping:
    """Clips the update in an answer to a ``train`` message.

    All clients count as one example, and no metric leaves.

    Parameters
    ----------
    clip
        C, the bound on an update in L2 norm; the same as the strategy's.
    clipping
        ``flat``, or ``per_layer``: each of L floating arrays to C/√L.
    encoded_by
        The protocol that rounds the update afterwards; ``None`` where nothing does. The update is
        clipped to so much less than C that its words keep C, however they are rounded.
    """

    clip: float = 1.0
    clipping: str = "flat"
    encoded_by: Protocol | Cohort | None = None
    clips_updates: ClassVar = True

    def __post_init__(self) -> None:
        expect_clip(self.clip, self.clipping)

    def __call__(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Answer with the clipped update; pass on what is no answer to ``train``.

        Raises
        ------
        ConfigError
            If rounding alone could exceed the bound.
        """
        return answered(message, context, call_next, self._change)

    def check_model(self, model: nn.Module) -> None:
        """Raise ``ConfigError`` if for this model rounding alone could exceed the bound."""
        state = model.state_dict()
        self._check({k: v.numel() for k, v in state.items() if v.is_floating_point()})

    def _change(self, update: Update) -> tuple[Update, Mapping[str, float]]:
        self._check({name: values.size for name, values in update.items()})
        return clipped(update, self.clip, self.clipping, self._error), {}

    @property
    def _error(self) -> float:
        """Largest change of a coordinate when it is encoded."""
        return self.encoded_by.codec.error_bound if self.encoded_by else 0.0

    def _check(self, sizes: Mapping[str, int]) -> None:
        if self.encoded_by is None:
            return
        exact, left = (
            [bound for _, bound in room(sizes, self.clip, self.clipping, error)]
            for error in (0.0, self._error)
        )
        lost = max((1 - b / a for a, b in zip(exact, left, strict=True)), default=0.0)
        bits = self.encoded_by.bits
        # The error halves with each bit; one more, since 2^(bits-1) - 1 is a little less.
        allowed = f"at least {bits + math.floor(math.log2(max(lost, 1.0))) + 1}, so that rounding "
        allowed += f"alone cannot exceed clip={self.clip}"
        expect(lost < 1, "encoded_by.bits", bits, allowed)
