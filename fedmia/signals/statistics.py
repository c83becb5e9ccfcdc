"""The signals of one transcript: lazily computed arrays over rounds, clients and candidates."""

import copy
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fedmia.records import Examples
from fedmia.signals.compared import CHANGED, Compared
from fedmia.signals.gradients import trainable
from fedmia.signals.lenses import Lens
from fedmia.signals.passes import Passes
from fedmia.signals.sweeps import Sweeps
from fedmia.transcript import Transcript
from fedmia.vantages import named

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]


class Signals:
    """What a transcript says of each of n candidates, for T visible rounds and K nodes.

    Each array is computed when it is first asked for, together with those that share its passes,
    and kept under ``cache`` where later runs on the same transcript find it. The model runs in
    eval mode. What a client did not send is NaN, and so is what a round came to where that was not
    seen; everything else is finite, or asking for it
    raises ``FloatingPointError``: finite logits have finite losses, so that an infinite one also
    means a network or a record that is broken.

    Arrays of ``(T or T+1, …)`` have the rows of ``rounds_global``, all others those of ``rounds``.

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
        The visible rounds ``w^t`` and, as ``None``, the model after the last round where it is
        visible.
    nodes
        The K nodes whose updates were seen: the columns.
    parameters
        The names of the P parameter tensors that training moves.
    candidates
        The n labelled records.

    Raises
    ------
    ValueError
        If there are no candidates.
    ConfigError
        When an array is asked for and the transcript's model is not of this architecture.
    FloatingPointError
        When an array is asked for that is not finite where it should be.
    """

    def __init__(
        self, transcript: Transcript, model: nn.Module, candidates: Examples, cache: Path | None
    ) -> None:
        if len(candidates) == 0:
            raise ValueError("there are no candidates to compute signals for")
        sweeps = Sweeps(transcript, copy.deepcopy(model).eval(), candidates)
        self.rounds = transcript.rounds
        self.rounds_global: tuple[int | None, ...] = (
            *self.rounds,
            *([None] if sweeps.final is not None else []),
        )
        self.nodes = sweeps.nodes
        self.parameters = tuple(trainable(model))
        self.candidates = candidates
        self._passes = Passes(sweeps, candidates, cache)
        self._cache = cache
        self._others: dict[str, Signals] = {}
        self._compared: dict[Lens, Passes[Compared]] = {}
        self._lens: Lens | None = None
        self._stop: int | None = None

    @property
    def seconds(self) -> float:
        """Time spent computing so far, that for other records and through lenses included."""
        compared = sum(passes.seconds for passes in self._compared.values())
        others = sum(other.seconds for other in self._others.values())
        return self._passes.seconds + compared + others

    @property
    def loss_global(self) -> Float64:
        """``ℓ(w^t; x, y)``: (T or T+1, n)."""
        return self._rows("loss_global")

    @property
    def logit_gap_global(self) -> Float64:
        """``φ = z_y − logsumexp_{j≠y} z_j`` under ``w^t``: (T or T+1, n)."""
        return self._rows("logit_gap_global")

    @property
    def entropy_global(self) -> Float64:
        """``−Σ_i p_i log p_i`` under ``w^t``: (T or T+1, n)."""
        return self._rows("entropy_global")

    @property
    def mentr_global(self) -> Float64:
        """Song and Mittal's modified entropy under ``w^t``: (T or T+1, n)."""
        return self._rows("mentr_global")

    @property
    def loss_local(self) -> Float64:
        """``ℓ(w_k^t; x, y)`` with ``w_k^t = w^t + Δ_k^t``: (T, K, n)."""
        return self._rows("loss_local")

    @property
    def logit_gap_local(self) -> Float64:
        """``φ`` under ``w_k^t``: (T, K, n)."""
        return self._rows("logit_gap_local")

    @property
    def entropy_local(self) -> Float64:
        """Entropy under ``w_k^t``: (T, K, n)."""
        return self._rows("entropy_local")

    @property
    def mentr_local(self) -> Float64:
        """Modified entropy under ``w_k^t``: (T, K, n)."""
        return self._rows("mentr_local")

    @property
    def grad_norm(self) -> Float32:
        """``‖∇ℓ(w^t; x, y)‖₂``: (T or T+1, n)."""
        return self._rows("grad_norm")

    @property
    def grad_norm_local(self) -> Float32:
        """``‖∇ℓ(w_k^t; x, y)‖₂``: (T, K, n)."""
        return self._rows("grad_norm_local")

    @property
    def last_layer_norm_global(self) -> Float64:
        """``‖p − e_y‖ √(‖h‖² + 1)``, the last layer's share of ``grad_norm``: (T or T+1, n).

        Raises ``NotImplementedError`` if the logits do not come from a Linear layer.
        """
        return self._rows("last_layer_norm_global")

    @property
    def last_layer_norm_local(self) -> Float64:
        """The same under ``w_k^t``: (T, K, n)."""
        return self._rows("last_layer_norm_local")

    @property
    def inner(self) -> Float32:
        """``⟨∇ℓ(w^t; x, y), u_k^t⟩`` with the descent direction ``u = −Δ``: (T, K, n)."""
        return self._rows("inner")

    @property
    def cosine(self) -> Float32:
        """``inner / (‖∇ℓ‖ ‖u‖)``, 0 where either norm is 0: (T, K, n)."""
        return self._rows("cosine")

    @property
    def update_norm(self) -> Float32:
        """``‖u_k^t‖₂`` over the trainable parameters: (T, K)."""
        return self._rows("update_norm")

    @property
    def aggregate_inner(self) -> Float32:
        """``⟨∇ℓ(w^t; x, y), u^t⟩`` with ``u^t = w^t − w^{t+1}``: (T, n), NaN where not seen."""
        return self._sums("aggregate_inner")

    @property
    def aggregate_cosine(self) -> Float32:
        """``aggregate_inner / (‖∇ℓ‖ ‖u^t‖)``, 0 where either norm is 0: (T, n)."""
        return self._sums("aggregate_cosine")

    @property
    def parameter_norm(self) -> Float32:
        """``‖∇_p ℓ(w^t; x, y)‖₂`` of each of ``parameters``: (T, P, n)."""
        return self._rows("parameter_norm")

    @property
    def parameter_inner(self) -> Float32:
        """``⟨∇_p ℓ(w^t; x, y), u_{k,p}^t⟩``, whose sum over P is ``inner``: (T, K, P, n)."""
        return self._rows("parameter_inner")

    @property
    def parameter_update_norm(self) -> Float32:
        """``‖u_{k,p}^t‖₂``: (T, K, P)."""
        return self._rows("parameter_update_norm")

    @property
    def present(self) -> NDArray[np.bool_]:
        """Whether client k's update of round t was seen: (T, K)."""
        return self._passes.present[: self._stop]

    def logits(self, t: int, k: int | None = None) -> Float32:
        """Return the candidates' logits under ``w^t``, or column k's ``w_k^t``: (n, classes).

        ``t`` is a row of ``rounds_global``, with ``k`` one of ``rounds``; −1 is the last.

        Raises
        ------
        ValueError
            If client k sent nothing in that round.
        """
        if k is None:
            return np.asarray(self._rows("logits_global")[t])
        row = self._row(t, k)
        return np.asarray(self._rows("logits_local")[row, k])

    def model(self, t: int, k: int | None = None, into: nn.Module | None = None) -> nn.Module:
        """Return the network under ``w^t``, or column k's ``w_k^t``, in eval mode.

        ``t`` and ``k`` are those of :meth:`logits`. The network is a copy of its own, unless one
        that was returned before is to take these weights.

        Raises
        ------
        ValueError
            If client k sent nothing in that round.
        """
        return self._passes.sweeps.network(self._row(t, k), k, into)

    def until(self, rounds: int) -> "Signals":
        """Return the signals as they were after the first ``rounds`` visible rounds.

        Who sees what comes of every round knows the next model by then. Whatever either object
        computes is shared, not computed again.
        """
        early = copy.copy(self)
        early.rounds = self.rounds[:rounds]
        vantage = named(self._passes.sweeps.transcript.vantage)
        ahead = vantage is not None and vantage.every_round
        early.rounds_global = self.rounds_global[: rounds + ahead]
        early._stop = rounds
        return early

    def through(self, lens: Lens) -> "Signals":
        """Return the signals of an adversary that knows a defence: cosines are through the lens.

        ``inner`` and ``parameter_inner`` are those cosines times the norms of gradient and update,
        which stay as they are; so does everything else, and is shared, not computed again.
        """
        if lens not in self._compared:
            compared = Compared(self._passes, lens, self.candidates)
            self._compared[lens] = Passes(compared, self.candidates, self._cache)
        seen = copy.copy(self)
        seen._lens = lens
        return seen

    def of(self, records: Examples) -> "Signals":
        """Return the signals of other records under the same transcript, kept once made."""
        key = hashlib.sha256(records.x.tobytes() + records.y.tobytes()).hexdigest()
        if key not in self._others:
            self._others[key] = self._with(records)
        other = self._others[key]
        other = other if self._lens is None else other.through(self._lens)
        return other if self._stop is None else other.until(self._stop)

    def _with(self, records: Examples) -> "Signals":
        sweeps = self._passes.sweeps
        return Signals(sweeps.transcript, sweeps.model, records, self._cache)

    def _rows(self, name: str) -> NDArray[Any]:
        every = name == "grad_norm" or name.endswith("_global")
        stop = len(self.rounds_global) if every else self._stop
        if self._lens is not None and name in CHANGED:
            return self._compared[self._lens].rows(name, stop)
        return self._passes.rows(name, stop)

    def _sums(self, name: str) -> NDArray[Any]:
        """Return rows of what is known once the next model is seen, as that of the last may not."""
        rows = self._rows(name)
        if len(self.rounds_global) > len(self.rounds) or not len(rows):
            return rows
        return np.concatenate([rows[:-1], np.full_like(rows[-1:], np.nan)])

    def _row(self, t: int, k: int | None) -> int:
        row = range(len(self.rounds_global if k is None else self.rounds))[t]
        if k is not None and not self.present[row, k]:
            raise ValueError(f"client column {k} sent nothing in round {self.rounds[row]}")
        return row
