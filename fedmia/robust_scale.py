"""Where most of a round's clients are, and how far apart: medians, which a minority cannot move."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

CONSISTENT = 1.4826
"""Median absolute deviations in one standard deviation of a Gaussian."""


@dataclass(frozen=True, eq=False)
class Scale:
    """The centre and the spread of each feature among the clients of a round, (f,) both."""

    centre: Float64
    spread: Float64

    @classmethod
    def of(cls, features: Float64, floor: float) -> "Scale":
        """Return medians and ``max(1.4826 · MAD, floor)``, of features (n, f).

        The floor keeps a feature in which most clients agree from making outliers of the rest. A
        NaN counts for none; of a feature without any other the centre is 0.
        """
        features = features.copy()
        features[:, np.isnan(features).all(axis=0)] = 0.0
        centre = np.nanmedian(features, axis=0)
        deviation = np.nanmedian(np.abs(features - centre), axis=0)
        return cls(centre, np.maximum(CONSISTENT * deviation, floor))

    def z(self, features: NDArray[np.floating[Any]]) -> Float64:
        """Return robust z-scores, ``(x − centre) / spread``, in the shape of the features.

        What is not known, NaN, does not stand out: 0.
        """
        return np.nan_to_num((features - self.centre) / self.spread, nan=0.0)
