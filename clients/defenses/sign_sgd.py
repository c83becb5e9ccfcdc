"""Signs in place of updates, one bit a coordinate.

J. Bernstein, Y.-X. Wang, K. Azizzadenesheli, A. Anandkumar, "signSGD: Compressed Optimisation for
Non-Convex Problems", ICML 2018, arXiv 1802.04434; scaled and with error feedback it is EF-SignSGD
of S. P. Karimireddy, Q. Rebjock, S. U. Stich, M. Jaggi, "Error Feedback Fixes SignSGD and other
Gradient Compression Schemes", ICML 2019, arXiv 1901.09847.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from flwr.app import Context, Message

from clients.defenses.compression import Update, corrected, remember, replaced
from clients.defenses.hiding import Handler
from clients.payloads import signs
from fedmia.signals.lenses import Lens, Signs

_STATE = "sign_sgd"


@dataclass(frozen=True)
class SignSgd:
    """Sends the signs of the update u, each array's times the mean of its |u|.

    A coordinate that did not move counts as positive: there is no third sign. A strategy that
    averages makes of the answers a vote weighed by these means.

    Parameters
    ----------
    error_feedback
        Whether what the signs leave out is kept in the client's state, for its next update.
    """

    error_feedback: bool = True
    changes_updates: ClassVar = True
    lens: ClassVar[Lens] = Signs()

    def __call__(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Answer with the signs; pass on what is no answer to ``train``."""
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

    @staticmethod
    def _sent(update: Update) -> tuple[Update, int]:
        found: Update = {}
        size = 0
        for name, values in update.items():
            flat = values.astype(np.float32, copy=False).reshape(-1)
            scale = float(np.abs(flat).mean(dtype=np.float64))
            payload = signs.encode(flat, scale)
            found[name] = signs.decode(payload, flat.size).reshape(values.shape)
            size += len(payload)
        return found, size
