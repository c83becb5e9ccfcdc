"""Sweeps over a transcript's models: each fills the arrays that can be computed together."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor, nn

from fedmia.records import Examples, Observation
from fedmia.signals.forward import entropies, logits_of, loss_and_gap
from fedmia.signals.gradients import Directions, Route, nowhere, trainable
from fedmia.signals.last_layer import last_layer_norm
from fedmia.signals.routes import chunk_size, plan_route
from fedmia.signals.store import Arrays, Layout
from fedmia.signals.weights import load, unit_directions
from fedmia.transcript import Transcript

BY_CLIENT = frozenset(
    {
        *("loss_local", "logit_gap_local", "entropy_local", "mentr_local", "logits_local"),
        *("last_layer_norm_local", "grad_norm_local"),
        *("inner", "cosine", "update_norm", "parameter_inner", "parameter_update_norm"),
    }
)
"""Arrays of shape (T, K, …)."""

OF_SUMS = frozenset({"aggregate_inner", "aggregate_cosine"})
"""Arrays of shape (T, n), NaN in rounds whose aggregate was not seen."""

Measured = Iterator[tuple[slice, Mapping[str, Tensor]]]
"""Chunks of the candidates with what was measured of them under the model as it stands."""

_Measure = Callable[[], Measured]

_KEPT_BYTES = 64 * 2**20
"""Memory for rounds that single networks are asked of, one round at least."""


class Sweeps:
    """What is computed of n candidates under the models of T rounds, K nodes and the last model.

    Parameters
    ----------
    transcript
        What the adversary saw.
    model
        A network of its architecture, in eval mode; its weights change with every sweep.
    candidates
        The n labelled records.
    """

    def __init__(self, transcript: Transcript, model: nn.Module, candidates: Examples) -> None:
        self.transcript, self.model = transcript, model
        self.nodes, self.final = transcript.node_ids, transcript.final
        self._kept: dict[int, Observation] = {}
        self._x = torch.from_numpy(np.array(candidates.x))
        self._y = torch.from_numpy(np.array(candidates.y))

    def groups(self) -> dict[str, tuple[Layout, Callable[[Arrays], None]]]:
        """Return which arrays are computed together, and what fills them."""
        T, K, n = len(self.transcript), len(self.nodes), len(self._y)
        R, P = T + (self.final is not None), len(trainable(self.model))
        C = logits_of(self.model, self._x[:1]).shape[1]
        f4, f8 = np.float32, np.float64
        groups: dict[str, tuple[Layout, Callable[[Arrays], None]]] = {
            "gradients": (
                {
                    "grad_norm": ((R, n), f4),
                    "inner": ((T, K, n), f4),
                    "cosine": ((T, K, n), f4),
                    "update_norm": ((T, K), f4),
                    "aggregate_inner": ((T, n), f4),
                    "aggregate_cosine": ((T, n), f4),
                },
                self._totals,
            ),
            "parameters": (
                {
                    "parameter_norm": ((T, P, n), f4),
                    "parameter_inner": ((T, K, P, n), f4),
                    "parameter_update_norm": ((T, K, P), f4),
                },
                self._parts,
            ),
            "grad_norm_local": (
                {"grad_norm_local": ((T, K, n), f4)},
                partial(self._locally, self._grad_norm),
            ),
        }
        for where, shape, sweep in (
            ("global", (R, n), self._globally),
            ("local", (T, K, n), self._locally),
        ):
            outputs = ("loss", "logit_gap", "entropy", "mentr")
            groups |= {
                f"outputs_{where}": (
                    {f"{name}_{where}": (shape, f8) for name in outputs},
                    partial(sweep, self._outputs),
                ),
                f"logits_{where}": (
                    {f"logits_{where}": ((*shape, C), f4)},
                    partial(sweep, self._logits),
                ),
                f"last_layer_norm_{where}": (
                    {f"last_layer_norm_{where}": (shape, f8)},
                    partial(sweep, self._last_layer_norm),
                ),
            }
        return groups

    def network(self, row: int, column: int | None, into: nn.Module | None = None) -> nn.Module:
        """Return a copy of the model with the weights of a row, or of a client that was present.

        ``into`` is a copy made before, which takes these weights.
        """
        seen = self._kept_round(row)
        node = None if column is None else self.nodes[column]
        model = copy.deepcopy(self.model) if into is None else into
        load(model, seen.params, next((u for u in seen.updates if u.node_id == node), None))
        return model

    def _kept_round(self, row: int) -> Observation:
        """Return a round, from memory where it was asked for lately: all clients' follow it."""
        if row in self._kept:
            return self._kept[row]
        seen = replace(self._round(row), aggregate=None)
        params = [seen.params, *(u.delta for u in seen.updates)]
        size = sum(array.nbytes for one in params for array in one.values())
        while self._kept and (len(self._kept) + 1) * size > _KEPT_BYTES:
            del self._kept[next(iter(self._kept))]
        self._kept[row] = seen
        return seen

    def _round(self, row: int) -> Observation:
        """Return what was seen of a round, or the final model as one in which nothing moved."""
        if row == len(self.transcript) and self.final is not None:
            return Observation(0, self.final, ())
        return self.transcript[row]

    def _globally(self, measure: _Measure, arrays: Arrays) -> None:
        for row in range(len(self.transcript) + (self.final is not None)):
            load(self.model, self._round(row).params)
            for chunk, values in measure():
                for name, value in values.items():
                    arrays[f"{name}_global"][row, chunk] = value

    def _locally(self, measure: _Measure, arrays: Arrays) -> None:
        for t in range(len(self.transcript) if self.nodes else 0):
            seen = self._round(t)
            for update in seen.updates:
                k = self.nodes.index(update.node_id)
                load(self.model, seen.params, update)
                for chunk, values in measure():
                    for name, value in values.items():
                        arrays[f"{name}_local"][t, k, chunk] = value

    def _outputs(self) -> Measured:
        for chunk, values in self._logits():
            y = self._y[chunk]
            loss, gap = loss_and_gap(values["logits"], y)
            entropy, mentr = entropies(values["logits"], y)
            yield chunk, {"loss": loss, "logit_gap": gap, "entropy": entropy, "mentr": mentr}

    def _logits(self) -> Measured:
        for chunk in self._chunks(self._forward_rows):
            yield chunk, {"logits": logits_of(self.model, self._x[chunk])}

    def _last_layer_norm(self) -> Measured:
        for chunk in self._chunks(self._forward_rows):
            norm = last_layer_norm(self.model, self._x[chunk], self._y[chunk])
            yield chunk, {"last_layer_norm": norm}

    def _grad_norm(self) -> Measured:
        for chunk, residuals, squares, _ in self._reduced(nowhere(self.model)):
            yield chunk, {"grad_norm": (residuals * squares.sum(1).sqrt()).float()}

    def _totals(self, arrays: Arrays) -> None:
        for row in range(len(arrays["grad_norm"])):
            seen = self._round(row)
            load(self.model, seen.params)
            columns = [self.nodes.index(u.node_id) for u in seen.updates]
            K, moves = len(columns), [u.delta for u in seen.updates]
            if seen.aggregate is not None:
                moves.append(seen.aggregate)
            directions, lengths, _ = unit_directions(self.model, moves)
            if columns:
                arrays["update_norm"][row, columns] = lengths[:K].float()
            for chunk, residuals, squares, dots in self._reduced(directions):
                norms = squares.sum(1).sqrt()
                norm = residuals * norms
                arrays["grad_norm"][row, chunk] = norm.float()
                cosine = (dots.sum(2) / torch.where(norms == 0, 1, norms)[:, None]).T
                inner = cosine * norm * lengths[:, None]
                if columns:
                    arrays["cosine"][row, columns, chunk] = cosine[:K].float()
                    arrays["inner"][row, columns, chunk] = inner[:K].float()
                if seen.aggregate is not None:
                    arrays["aggregate_cosine"][row, chunk] = cosine[K].float()
                    arrays["aggregate_inner"][row, chunk] = inner[K].float()

    def _parts(self, arrays: Arrays) -> None:
        for t in range(len(self.transcript)):
            seen = self._round(t)
            load(self.model, seen.params)
            columns = [self.nodes.index(u.node_id) for u in seen.updates]
            directions, lengths, parts = unit_directions(
                self.model, [u.delta for u in seen.updates]
            )
            if columns:
                arrays["parameter_update_norm"][t, columns] = parts.float()
            for chunk, residuals, squares, dots in self._reduced(directions):
                norm = residuals[:, None] * squares.sqrt()
                arrays["parameter_norm"][t, :, chunk] = norm.T.float()
                if columns:
                    inner = dots.double() * residuals[:, None, None] * lengths[:, None]
                    arrays["parameter_inner"][t, columns, :, chunk] = inner.permute(1, 2, 0).float()

    def _reduced(self, directions: Directions) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        route, rows = self.plan
        for chunk in self._chunks(rows):
            yield chunk, *route(self.model, self._x[chunk], self._y[chunk], directions)

    def _chunks(self, rows: int) -> Iterator[slice]:
        for i in range(0, len(self._y), rows):
            yield slice(i, min(i + rows, len(self._y)))

    @cached_property
    def _forward_rows(self) -> int:
        return chunk_size(self.model, self._x)

    @cached_property
    def plan(self) -> tuple[Route, int]:
        """The route that gradients of this model take, and how many candidates at a time."""
        return plan_route(self.model, self._x, self._y)
