"""What the attacks on one model share: which model it is."""

from abc import ABC
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmia.attacks.base import Attack, View
from fedmia.attacks.series import over_rounds
from fedmia.errors import expect
from fedmia.records import Capability

Float64 = NDArray[np.float64]
Signal = Callable[[], NDArray[np.floating]]


class OneModelAttack(Attack, ABC):
    """Judge records by the last global model seen, or by the target's own last model.

    Parameters
    ----------
    model
        ``global``: the last global model seen, the same score for every target;
        ``local``: the target's own last model.
    """

    model: str

    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.OUTPUTS})

    def __post_init__(self) -> None:
        expect(self.model in ("global", "local"), "model", self.model, "global or local")

    def requirements(self) -> frozenset[Capability]:
        """Return what the chosen model needs, for a local one updates and no global model."""
        if self.model == "global":
            return self.needs
        of_global = {Capability.GLOBAL_MODEL, Capability.OUTPUTS}
        return self.needs - of_global | {Capability.CLIENT_UPDATES}

    def last(self, view: View, target: int | None, of_global: Signal, of_local: Signal) -> Float64:
        """Return a signal of n records under the chosen model, (n,).

        Only the signal that is needed is computed: ``of_global`` returns (rounds, n), ``of_local``
        (rounds, clients, n).

        Raises
        ------
        NotApplicableError
            As :func:`over_rounds`.
        """
        if self.model == "global":
            return np.asarray(of_global()[-1], dtype=np.float64)
        return np.asarray(over_rounds(view, of_local(), target)[-1])
