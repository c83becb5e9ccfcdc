"""The signals of a model of which nothing is seen but what a release lets out of its outputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from numpy.typing import NDArray
from torch import Tensor, nn

from fedmia.records import Examples
from fedmia.signals.passes import Passes
from fedmia.signals.statistics import Signals
from fedmia.signals.sweeps import Measured, Sweeps
from fedmia.transcript import Transcript

Guard = Callable[[Tensor, Tensor], Tensor]
"""Returns the logits (n, classes) that are shown of records (n, *input_shape) in place of true
ones. The same record has the same answer at every query, or noise could be averaged away.
"""

_OF_OUTPUTS = frozenset(
    {"loss_global", "logit_gap_global", "entropy_global", "mentr_global", "logits_global"}
)


class ReleasedSweeps(Sweeps):
    """Sweeps whose logits have passed a guard."""

    def __init__(
        self, transcript: Transcript, model: nn.Module, candidates: Examples, guard: Guard
    ) -> None:
        super().__init__(transcript, model, candidates)
        self._guard = guard

    def _logits(self) -> Measured:
        for chunk, values in super()._logits():
            yield chunk, {"logits": self._guard(self._x[chunk], values["logits"])}


class ReleasedSignals(Signals):
    """Those arrays of :class:`Signals` that follow from the outputs of the final model, guarded.

    Parameters
    ----------
    transcript, model, candidates, cache
        As of :class:`Signals`; of the transcript, the model after the last round is asked.
    guard
        Stands before the outputs of all models of the transcript.

    Raises
    ------
    PermissionError
        When anything else is asked for.
    """

    def __init__(
        self,
        transcript: Transcript,
        model: nn.Module,
        candidates: Examples,
        cache: Path | None,
        guard: Guard,
    ) -> None:
        super().__init__(transcript, model, candidates, cache)
        sweeps = self._passes.sweeps
        self._guard = guard
        self._passes = Passes(
            ReleasedSweeps(transcript, sweeps.model, candidates, guard), candidates, cache
        )

    def model(self, t: int, k: int | None = None, into: nn.Module | None = None) -> NoReturn:
        """Refuse: the network is not released."""
        raise PermissionError("the model is not released, its outputs are")

    def _with(self, records: Examples) -> Signals:
        sweeps = self._passes.sweeps
        return ReleasedSignals(sweeps.transcript, sweeps.model, records, self._cache, self._guard)

    def _rows(self, name: str) -> NDArray[Any]:
        if name not in _OF_OUTPUTS:
            raise PermissionError(f"signal {name}: the model is not released, its outputs are")
        return super()._rows(name)
