"""The signals of one transcript: lazily computed arrays over rounds, clients and candidates."""

import copy
import hashlib
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedmia.records import Examples
from fedmia.signals.forward import evaluate
from fedmia.signals.gradients import Route
from fedmia.signals.identity import identify
from fedmia.signals.routes import chunk_size, plan_route
from fedmia.signals.store import Arrays, Layout, remember
from fedmia.signals.weights import load, unit_directions
from fedmia.transcript import Transcript

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]


class Signals:
    """What a transcript says of each of n candidates, for T visible rounds and K nodes.

    Each array is computed when it is first asked for, together with those that share its passes,
    and kept under ``cache`` where later runs on the same transcript find it. The model runs in
    eval mode. What is not finite stays so; what a client did not send is NaN.

    Parameters
    ----------
    transcript
        What the adversary saw.
    model
        A network of the architecture that was trained; its own weights do not matter.
    candidates
        The n labelled records.
    cache
        A folder for the arrays, beside the transcript; ``None`` keeps them in memory.

    Attributes
    ----------
    rounds
        The T visible rounds: the rows of most arrays.
    rounds_global
        The rows of ``loss_global`` and ``logit_gap_global``: the visible rounds ``w^t`` and, as
        ``None``, the model after the last round where it is visible.
    nodes
        The K nodes whose updates were seen: the columns.
    seconds
        Time spent computing so far.

    Raises
    ------
    ValueError
        If there are no candidates.
    ConfigError
        When an array is asked for and the transcript's model is not of this architecture.
    """

    def __init__(
        self, transcript: Transcript, model: nn.Module, candidates: Examples, cache: Path | None
    ) -> None:
        if len(candidates) == 0:
            raise ValueError("there are no candidates to compute signals for")
        self.rounds = transcript.rounds
        self._stop: int | None = None
        self.nodes = transcript.node_ids
        final = transcript.final
        self.rounds_global: tuple[int | None, ...] = (
            *self.rounds,
            *([None] if final is not None else []),
        )
        self.seconds = 0.0
        self._transcript = transcript
        self._length = len(transcript)
        self._final = final
        self._cache = cache
        self._others: dict[str, Signals] = {}
        self._candidates = candidates
        self._model = copy.deepcopy(model).eval()
        self._x = torch.from_numpy(np.array(candidates.x))
        self._y = torch.from_numpy(np.array(candidates.y))

    @property
    def loss_global(self) -> Float64:
        """``ℓ(w^t; x, y)`` and, in the last row where visible, ``ℓ(w^T; x, y)``: (T or T+1, n)."""
        return self._global["loss"][: self._stop]

    @property
    def logit_gap_global(self) -> Float64:
        """``φ = z_y − logsumexp_{j≠y} z_j`` under the same models: (T or T+1, n)."""
        return self._global["logit_gap"][: self._stop]

    @property
    def loss_local(self) -> Float64:
        """``ℓ(w_k^t; x, y)`` with ``w_k^t = w^t + Δ_k^t``: (T, K, n)."""
        return self._local["loss"][: self._stop]

    @property
    def logit_gap_local(self) -> Float64:
        """``φ`` under ``w_k^t``: (T, K, n)."""
        return self._local["logit_gap"][: self._stop]

    @property
    def grad_norm(self) -> Float32:
        """``‖∇ℓ(w^t; x, y)‖₂``: (T, n)."""
        return self._gradients["grad_norm"][: self._stop]

    @property
    def inner(self) -> Float32:
        """``⟨∇ℓ(w^t; x, y), u_k^t⟩`` with the descent direction ``u = −Δ``: (T, K, n)."""
        return self._gradients["inner"][: self._stop]

    @property
    def cosine(self) -> Float32:
        """``inner / (‖∇ℓ‖ ‖u‖)``, 0 where either norm is 0: (T, K, n)."""
        return self._gradients["cosine"][: self._stop]

    @property
    def update_norm(self) -> Float32:
        """``‖u_k^t‖₂`` over the trainable parameters: (T, K)."""
        return self._gradients["update_norm"][: self._stop]

    @property
    def present(self) -> NDArray[np.bool_]:
        """Whether client k's update of round t was seen: (T, K)."""
        return self._present[: self._stop]

    def until(self, rounds: int) -> "Signals":
        """Return the signals as they were after the first ``rounds`` visible rounds.

        Whatever this object has computed is shared, not computed again.
        """
        early = copy.copy(self)
        early.rounds = self.rounds[:rounds]
        early.rounds_global = self.rounds_global[:rounds]
        early._stop = rounds
        return early

    def of(self, records: Examples) -> "Signals":
        """Return the signals of other records under the same transcript, kept once made."""
        key = hashlib.sha256(records.x.tobytes() + records.y.tobytes()).hexdigest()
        if key not in self._others:
            self._others[key] = Signals(self._transcript, self._model, records, self._cache)
        other = self._others[key]
        return other if self._stop is None else other.until(self._stop)

    @cached_property
    def _present(self) -> NDArray[np.bool_]:
        seen = [[u.node_id for u in self._transcript[t].updates] for t in range(self._length)]
        return np.array([[k in row for k in self.nodes] for row in seen], dtype=np.bool_).reshape(
            self._length, len(self.nodes)
        )

    @cached_property
    def _key(self) -> str:
        return identify(self._transcript, self._model, self._candidates)

    @cached_property
    def _rows(self) -> int:
        return chunk_size(self._model, self._x)

    @cached_property
    def _global(self) -> Arrays:
        shape = (self._length + (self._final is not None), len(self._y))
        layout: Layout = {"loss": (shape, np.float64), "logit_gap": (shape, np.float64)}
        return self._compute("global", layout, self._fill_global)

    @cached_property
    def _local(self) -> Arrays:
        shape = (self._length, len(self.nodes), len(self._y))
        layout: Layout = {"loss": (shape, np.float64), "logit_gap": (shape, np.float64)}
        return self._compute("local", layout, self._fill_local)

    @cached_property
    def _gradients(self) -> Arrays:
        T, K, n = self._length, len(self.nodes), len(self._y)
        layout: Layout = {
            "grad_norm": ((T, n), np.float32),
            "inner": ((T, K, n), np.float32),
            "cosine": ((T, K, n), np.float32),
            "update_norm": ((T, K), np.float32),
        }
        return self._compute("gradients", layout, self._fill_gradients)

    def _compute(self, name: str, layout: Layout, fill: Callable[[Arrays], None]) -> Arrays:
        start = time.perf_counter()
        folder = self._cache / self._key / name if self._cache else None
        arrays = remember(folder, layout, fill)
        self.seconds += time.perf_counter() - start
        return arrays

    def _fill_global(self, arrays: Arrays) -> None:
        for t in range(self._length):
            load(self._model, self._transcript[t].params)
            arrays["loss"][t], arrays["logit_gap"][t] = self._evaluate()
        if self._final is not None:
            load(self._model, self._final)
            arrays["loss"][-1], arrays["logit_gap"][-1] = self._evaluate()

    def _fill_local(self, arrays: Arrays) -> None:
        for t in range(self._length):
            observation = self._transcript[t]
            for update in observation.updates:
                k = self.nodes.index(update.node_id)
                load(self._model, observation.params, update)
                arrays["loss"][t, k], arrays["logit_gap"][t, k] = self._evaluate()

    def _fill_gradients(self, arrays: Arrays) -> None:
        plan: tuple[Route, int] | None = None
        for t in range(self._length):
            observation = self._transcript[t]
            load(self._model, observation.params)
            route, rows = plan = plan or plan_route(self._model, self._x, self._y)
            columns = [self.nodes.index(u.node_id) for u in observation.updates]
            directions, lengths = unit_directions(self._model, observation.updates)
            arrays["update_norm"][t, columns] = lengths.float()
            for i in range(0, len(self._y), rows):
                chunk = slice(i, i + rows)
                residuals, norms, dots = route(
                    self._model, self._x[chunk], self._y[chunk], directions
                )
                norm = residuals * norms
                cosine = (dots / torch.where(norms == 0, 1, norms)[:, None]).T
                arrays["grad_norm"][t, chunk] = norm.float()
                arrays["cosine"][t, columns, chunk] = cosine.float()
                arrays["inner"][t, columns, chunk] = (cosine * norm * lengths[:, None]).float()

    def _evaluate(self) -> tuple[Float64, Float64]:
        return evaluate(self._model, self._x, self._y, self._rows)
