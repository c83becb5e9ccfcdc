"""Gradient difference on the scale of the sum of all the client's gradients.

J. Li, N. Li, B. Ribeiro, "Effective Passive Membership Inference Attacks in Federated Learning
Against Overparameterized Models", ICLR 2023, OpenReview QsCSLPP55Ku ("Gradient-Diff").
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Attack, Knowledge, NotApplicableError, View
from fedmia.attacks.rounds import check_rounds, chosen, rounds_of
from fedmia.errors import expect
from fedmia.records import Capability, Examples
from fedmia.transcript import Transcript


def step_weight(lr: float, momentum: float, steps: int) -> float:
    """Return the factor by which SGD moves along a gradient that stays the same.

    ``lr · Σ_{s=1}^{S} (1 − m^s) / (1 − m)``: the momentum buffer starts at zero in each round. For
    many steps this tends to ``S · lr / (1 − m)``.
    """
    buildup = np.sum(1 - momentum ** np.arange(1, steps + 1)) / (1 - momentum)
    return float(lr * buildup)


@dataclass(frozen=True)
class GradDiffScaled(Attack):
    """Score ``‖N·B̂‖² − ‖N·B̂ − g‖² = 2N⟨B̂, g⟩ − ‖g‖²`` with ``g = ∇ℓ(w^t; x, y)``.

    ``B̂`` is the mean gradient over the client's N records. An update of several steps of SGD shows
    it only up to the steps' weight: ``B̂ = u_k^t / step_weight``, exact as long as the gradients
    stay what they are at ``w^t``. If the gradients of different records are orthogonal, the score
    is ``‖g‖²`` for a member and ``−‖g‖²`` for anyone else. N is what the client reports.

    The four numbers of the recipe set the scale alone, and are the adversary's belief: a server
    usually prescribes them.

    Parameters
    ----------
    rounds
        ``last``: the last round that the target took part in; ``mean``: over all of these.
    lr, momentum, local_epochs, batch_size
        Of the clients' SGD; ``None`` if not known, in which case there is no score.
    """

    rounds: str = "last"
    lr: float | None = None
    momentum: float | None = None
    local_epochs: int | None = None
    batch_size: int | None = None

    needs = frozenset({Capability.CLIENT_UPDATES, Capability.RECIPE})
    reference = "li2023effective"

    def __post_init__(self) -> None:
        check_rounds(self.rounds)
        lr, m = self.lr, self.momentum
        expect(lr is None or 0 < lr < np.inf, "lr", lr, "more than 0 and finite")
        expect(m is None or 0 <= m < 1, "momentum", m, "in [0, 1)")
        for name in ("local_epochs", "batch_size"):
            value = getattr(self, name)
            expect(value is None or value >= 1, name, value, "at least 1")

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the difference, shape (n,)."""
        k, rows = rounds_of(view, target)
        t = chosen(rows, self.rounds)
        scale = np.array([self._scale(view, int(row), target) for row in t])
        inner = np.asarray(view.signals.inner[t, k], dtype=np.float64)
        g = np.asarray(view.signals.grad_norm[t], dtype=np.float64)
        return np.asarray((2 * scale[:, None] * inner - g**2).mean(axis=0))

    def _scale(self, view: View, t: int, target: int | None) -> float:
        """Return ``N / step_weight``, by which ``u_k^t`` becomes ``N·B̂``."""
        lr, m, epochs, batch = self.lr, self.momentum, self.local_epochs, self.batch_size
        if lr is None or m is None or epochs is None or batch is None:
            raise NotApplicableError("needs lr, momentum, local_epochs, batch_size of the recipe")
        N = _num_examples(view.transcript, t)[target]
        return N / step_weight(lr, m, epochs * ceil(N / batch))


@lru_cache(maxsize=512)
def _num_examples(transcript: Transcript, t: int) -> dict[int | None, int]:
    """Return how many records each node reported in a round; reading it reads all updates."""
    return {update.node_id: update.num_examples for update in transcript[t].updates}
