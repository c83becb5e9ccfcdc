"""The arrays of one transcript: computed once, kept beside it, and checked when read."""

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fedmia.records import Examples
from fedmia.signals.identity import identify
from fedmia.signals.store import Arrays, Layout, remember
from fedmia.signals.sweeps import BY_CLIENT, OF_SUMS
from fedmia.transcript import Transcript


class Sweep(Protocol):
    """Computes arrays of one transcript, as :class:`Sweeps` does."""

    transcript: Transcript
    model: nn.Module
    nodes: tuple[int, ...]

    def groups(self) -> dict[str, tuple[Layout, Callable[[Arrays], None]]]:
        """Return which arrays are computed together, and what fills them."""


S = TypeVar("S", bound=Sweep)


class Passes(Generic[S]):
    """Arrays by name, each computed when first asked for with those that share its sweep.

    ``seconds`` is the time spent computing so far.
    """

    def __init__(self, sweeps: S, candidates: Examples, cache: Path | None) -> None:
        self.sweeps = sweeps
        self.seconds = 0.0
        self._candidates = candidates
        self._cache = cache
        self._arrays: Arrays = {}
        self._faults: dict[str, tuple[int, str] | None] = {}

    def rows(self, name: str, stop: int | None) -> NDArray[Any]:
        """Return an array's rows up to ``stop``, read-only.

        Raises
        ------
        FloatingPointError
            If one of their numbers is not finite, those of absent clients excepted and those of
            sums that were not seen.
        """
        if name not in self._arrays:
            start = time.perf_counter()
            try:
                self._compute(name)
            finally:
                self.seconds += time.perf_counter() - start
        if name not in self._faults:
            self._faults[name] = self._fault(name)
        fault = self._faults[name]
        if fault is not None and (stop is None or fault[0] < stop):
            raise FloatingPointError(fault[1])
        return self._arrays[name][:stop]

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """Whether an update was seen, (T, K)."""
        nodes, transcript = self.sweeps.nodes, self.sweeps.transcript
        seen = [[u.node_id for u in transcript[t].updates] for t in range(len(transcript))]
        present = np.array([[k in row for k in nodes] for row in seen], dtype=np.bool_)
        return present.reshape(len(transcript), len(nodes))

    @cached_property
    def summed(self) -> tuple[bool, ...]:
        """Whether a round's aggregate was seen, (T,)."""
        return self.sweeps.transcript.summed

    def _compute(self, name: str) -> None:
        groups = self.sweeps.groups()
        group = next(g for g, (layout, _) in groups.items() if name in layout)
        folder = self._cache / self._key / group if self._cache else None
        self._arrays |= remember(folder, *groups[group])

    @cached_property
    def _key(self) -> str:
        return identify(self.sweeps.transcript, self.sweeps.model, self._candidates)

    def _fault(self, name: str) -> tuple[int, str] | None:
        """Return the first row that holds what is not finite, and what to say of it."""
        for t, row in enumerate(self._arrays[name]):
            finite = np.isfinite(row)
            if name in BY_CLIENT:
                finite[~self.present[t]] = True
            if name in OF_SUMS and not self.summed[t]:
                finite[:] = True
            if finite.all():
                continue
            rounds = self.sweeps.transcript.rounds
            text = f"signal {name} is not finite in "
            text += f"round {rounds[t]}" if t < len(rounds) else "the final model"
            if name in BY_CLIENT:
                k = int(np.argwhere(~finite)[0, 0])
                text += f", client column {k} (node {self.sweeps.nodes[k]})"
            return t, text
        return None
