"""The weighted sum of updates that are clipped in L2 norm, with a bound that rounding keeps.

Norms and sums are computed in double precision, which moves the sum of n updates of norm C by up to
n²·2⁻⁵³·C in each of two neighbouring federations, and a norm over d coordinates by a share of
d·2⁻⁵³. Before noise is added the sum is rounded to a lattice (:mod:`fedmia.privacy.lattice`), at
the price of √d·2⁻²⁴·C. Updates are scaled down to C less all of that.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmia.privacy.lattice import margin
from fedmia.records import Params


class ClippedSum:
    """Add up updates of one model, one at a time.

    Parameters
    ----------
    model
        What all clients started from; only its floating arrays are summed.
    clip
        Bound of the L2 norm of an update; ``inf`` leaves it as it is.
    most
        How many updates there may be.
    per_layer
        Whether each of the L arrays is clipped on its own, to ``clip / √L``.
    """

    def __init__(self, model: Params, clip: float, most: int, per_layer: bool = False) -> None:
        self._model = {k: v for k, v in model.items() if np.issubdtype(v.dtype, np.floating)}
        sizes = [value.size for value in self._model.values()]
        ends = np.cumsum(sizes).tolist()
        self._slices = [slice(e - n, e) for e, n in zip(ends, sizes, strict=True)]
        size = sum(sizes)
        self._update = np.empty(size, np.float32)
        self._exact = np.empty(size)
        self._pieces = self._slices if per_layer else [slice(0, size)]
        self._bound = clip / max(len(self._pieces), 1) ** 0.5
        self._limit = self._bound * (1 - margin(size) - (most**2 + size) * 2.0**-52)
        self._total: NDArray[np.float64] = np.zeros(size)

    @property
    def total(self) -> NDArray[np.float64]:
        """The weighted sum so far, shape (d,)."""
        return self._total.copy()

    def add(self, after: Params, weight: float = 1.0) -> bool:
        """Add a client's update, and return whether it was within the bound.

        Parameters
        ----------
        after
            The client's model.
        weight
            By which the clipped update is multiplied.

        Raises
        ------
        ArithmeticError
            If the update is not finite; nothing is added then.
        """
        for place, (name, before) in zip(self._slices, self._model.items(), strict=True):
            change: NDArray[Any] = self._update[place].reshape(before.shape)
            np.subtract(after[name], before, out=change, dtype=np.float32)
        self._exact[:] = self._update
        pieces = [self._exact[place] for place in self._pieces]
        norms = [float(np.dot(piece, piece)) ** 0.5 for piece in pieces]
        if not np.isfinite(norms).all():
            raise ArithmeticError("an update is not finite")
        for place, piece, norm in zip(self._pieces, pieces, norms, strict=True):
            factor = weight * (self._limit / norm if norm > self._limit else 1.0)
            if factor != 1:
                np.multiply(piece, factor, out=piece)
            self._total[place] += piece
        return all(norm <= self._bound for norm in norms)

    def moved(self, change: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the floating arrays of the model, moved by ``change`` of shape (d,)."""
        return {
            name: (before + change[place].reshape(before.shape)).astype(before.dtype)
            for place, (name, before) in zip(self._slices, self._model.items(), strict=True)
        }
