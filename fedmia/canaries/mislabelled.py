"""Canaries with a wrong label, which can be learnt by heart and in no other way.

M. Aerni, J. Zhang, F. Tramèr, Evaluations of Machine Learning Privacy Defenses are Misleading, CCS
2024 (arXiv 2404.17399), section 4; T. Steinke, M. Nasr, M. Jagielski, Privacy Auditing with One (1)
Training Run, NeurIPS 2023 (arXiv 2305.08846), section 6.
"""

from dataclasses import dataclass

import numpy as np
from torch import nn

from fedmia.canaries.base import CanaryRecords, other_labels
from fedmia.records import Examples


@dataclass(frozen=True, kw_only=True)
class Mislabelled(CanaryRecords):
    """Give each record another label, drawn uniformly."""

    def plant(
        self,
        records: Examples,
        others: Examples,
        model: nn.Module,
        num_classes: int,
        rng: np.random.Generator,
    ) -> Examples:
        """Return the same features with other labels."""
        return Examples(records.x, other_labels(records.y, num_classes, rng))
