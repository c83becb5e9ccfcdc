"""HAMP, its test-time part: everybody is shown scores of random records, in their own order.

Z. Chen, K. Pattabiraman, "Overconfidence is a Dangerous Thing: Mitigating Membership Inference
Attacks by Enforcing Less Confident Prediction", NDSS 2024, arXiv 2307.01610.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedmia.errors import expect
from fedmia.releases.base import Owner, Release
from fedmia.releases.coins import coins
from fedmia.seeding import generator, torch_seed
from fedmia.signals.released import Guard


@dataclass(frozen=True)
class HampOutput(Release):
    """Show a random record's sorted scores in place of the record's own, whose order they take.

    All that is left of the model's answer is which class comes before which. The random records
    are uniform between the least and the largest value of each feature among the members; which of
    them stands in for a record is a keyed hash of it, the same at every query.

    Parameters
    ----------
    pool
        Random records, drawn once.
    """

    pool: int = 1000

    def __post_init__(self) -> None:
        expect(self.pool >= 1, "pool", self.pool, "at least 1")

    def guard(self, owner: Owner) -> Guard:
        """Return what orders random scores; the model is asked about the pool once."""
        rng, key = generator(owner.seed, "hamp_output"), torch_seed(owner.seed, "hamp_output which")
        low, high = owner.members.x.min(0), owner.members.x.max(0)
        drawn = rng.uniform(low, high, (self.pool, *low.shape)).astype(np.float32)
        with torch.no_grad():
            sorted_logits = owner.model(torch.from_numpy(drawn)).log_softmax(1).sort(1).values

        def shown(x: Tensor, logits: Tensor) -> Tensor:
            chosen = sorted_logits[(coins(key, x) * self.pool).astype(np.int64)]
            return torch.empty_like(logits).scatter_(1, logits.argsort(1), chosen)

        return shown
