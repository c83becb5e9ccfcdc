"""Cosines between updates and gradients as they look through a lens."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from fedmia.records import Examples
from fedmia.signals.gradients import Directions, trainable, vectorised, written, written_in_turn
from fedmia.signals.layerwise import factors, layerwise
from fedmia.signals.lenses import Lens
from fedmia.signals.passes import Passes
from fedmia.signals.routes import choose_route
from fedmia.signals.store import Arrays, Layout
from fedmia.signals.sweeps import Sweeps
from fedmia.signals.weights import load, unit_directions

log = logging.getLogger(__name__)

CHANGED = frozenset({"cosine", "inner", "parameter_inner"})
"""The arrays that a lens changes."""

_WRITTEN_BYTES = 96 * 2**20
"""Memory for gradients written down at a time, and what is made of them."""

_Way = Callable[[Lens, nn.Module, Tensor, Tensor, Directions], tuple[Tensor, Tensor]]
"""Squared norms of n gradients and inner products with K updates through a lens: (n, K, P) each."""


class Compared:
    """What is computed of a transcript through a lens; goes with :class:`Passes` as a sweep does.

    ``cosine`` is that of what the lens shows of update and gradient. ``inner`` and
    ``parameter_inner`` are that cosine times the norms of the whole gradient and the whole update,
    as they are without a lens: what the lens leaves out is taken to agree as well as the rest.

    Parameters
    ----------
    plain
        The arrays without a lens.
    lens
        How the adversary looks at updates and gradients.
    candidates
        The n labelled records.
    """

    def __init__(self, plain: Passes[Sweeps], lens: Lens, candidates: Examples) -> None:
        self._plain, self._sweeps, self._lens = plain, plain.sweeps, lens
        self.transcript, self.model = self._sweeps.transcript, self._sweeps.model
        self.nodes = self._sweeps.nodes
        self._x = torch.from_numpy(np.array(candidates.x))
        self._y = torch.from_numpy(np.array(candidates.y))

    def groups(self) -> dict[str, tuple[Layout, Callable[[Arrays], None]]]:
        """Return which arrays are computed together, and what fills them."""
        layouts = {
            name: spec
            for layout, _ in self._sweeps.groups().values()
            for name, spec in layout.items()
            if name in CHANGED
        }
        mark = hashlib.sha256(repr(self._lens).encode()).hexdigest()[:12]
        whole = {name: layouts[name] for name in ("cosine", "inner")}
        parts = {"parameter_inner": layouts["parameter_inner"]}
        return {
            f"lens_{mark}": (whole, self._totals),
            f"lens_{mark}_parameters": (parts, self._parts),
        }

    def _totals(self, arrays: Arrays) -> None:
        T = len(self.transcript)
        for t, columns, chunk, squares, dots, lengths in self._measured():
            cosine = _cosine(squares.sum(2), dots.sum(2), lengths.sum(1)).T
            arrays["cosine"][t, columns, chunk] = cosine.float()
        g, u = self._plain.rows("grad_norm", T), self._plain.rows("update_norm", T)
        arrays["inner"][:] = arrays["cosine"] * g[:, None] * u[:, :, None]

    def _parts(self, arrays: Arrays) -> None:
        T = len(self.transcript)
        for t, columns, chunk, squares, dots, lengths in self._measured():
            cosine = _cosine(squares, dots, lengths).permute(1, 2, 0)
            arrays["parameter_inner"][t, columns, :, chunk] = cosine.float()
        g = self._plain.rows("parameter_norm", T)
        u = self._plain.rows("parameter_update_norm", T)
        arrays["parameter_inner"][:] *= g[:, None] * u[..., None]

    def _measured(self) -> Iterator[tuple[int, list[int], slice, Tensor, Tensor, Tensor]]:
        """Yield a round, its columns, a chunk, and by pair and parameter what cosines are made of.

        Squared norms and inner products (n, K, P), squared norms of the updates (K, P).
        """
        for t in range(len(self.transcript)):
            seen = self.transcript[t]
            columns = [self.nodes.index(update.node_id) for update in seen.updates]
            if not columns:
                continue
            load(self.model, seen.params)
            directions, _, _ = unit_directions(self.model, [u.delta for u in seen.updates])
            lengths = torch.stack(
                [
                    torch.stack([self._lens.update(k, one).square().sum() for one in u.flatten(1)])
                    for k, u in directions.items()
                ],
                1,
            )
            way, rows = self._plan
            for i in range(0, len(self._y), rows):
                chunk = slice(i, min(i + rows, len(self._y)))
                x, y = self._x[chunk], self._y[chunk]
                yield t, columns, chunk, *way(self._lens, self.model, x, y, directions), lengths

    @cached_property
    def _plan(self) -> tuple[_Way, int]:
        x, y = self._x, self._y
        route, rows = self._sweeps.plan
        if route is layerwise:
            try:
                dense(self._lens, self.model, x[:1], y[:1], _none(self.model))
                return dense, rows
            except TypeError as error:
                log.info("gradients are written down (%s)", error)
                route = choose_route(self.model, x, y, [vectorised])
        size = sum(p.numel() for p in trainable(self.model).values())
        way = together if route is vectorised else in_turn
        return way, max(1, _WRITTEN_BYTES // (3 * 4 * size))


def dense(
    lens: Lens, model: nn.Module, x: Tensor, y: Tensor, directions: Directions
) -> tuple[Tensor, Tensor]:
    """Compare gradients ``δ aᵀ`` of dense layers, which a lens may know how to do unwritten.

    Raises
    ------
    TypeError
        If a layer is no dense one that is used once a record.
    """
    _, layers = factors(model, x, y)
    found = {}
    with torch.no_grad():
        for name, (layer, a, delta) in layers.items():
            if type(layer) is not nn.Linear or a.ndim != 2:
                raise TypeError(f"layer {name} ({type(layer).__name__}) is not used once a record")
            weight, bias = (f"{name}.{k}" if name else k for k in ("weight", "bias"))
            if weight in directions:
                found[weight] = lens.compare_outer(weight, delta, a, directions[weight])
            if bias in directions:
                found[bias] = lens.compare(bias, delta, directions[bias])
    K = next(iter(directions.values())).shape[0]
    unused = x.new_zeros(len(y), K), x.new_zeros(len(y), K)
    squares, dots = zip(*(found.get(k, unused) for k in trainable(model)), strict=True)
    return torch.stack(squares, 2), torch.stack(dots, 2)


def together(
    lens: Lens, model: nn.Module, x: Tensor, y: Tensor, directions: Directions
) -> tuple[Tensor, Tensor]:
    """Compare gradients that are written down, those of a chunk by one vectorised pass."""
    return _of_written(lens, written(model, x, y)[1], directions)


def in_turn(
    lens: Lens, model: nn.Module, x: Tensor, y: Tensor, directions: Directions
) -> tuple[Tensor, Tensor]:
    """Compare gradients that are written down, by one backward pass each."""
    return _of_written(lens, written_in_turn(model, x, y)[1], directions)


def _of_written(
    lens: Lens, gradients: dict[str, Tensor], directions: Directions
) -> tuple[Tensor, Tensor]:
    pairs = [lens.compare(k, g, directions[k].flatten(1)) for k, g in gradients.items()]
    squares, dots = zip(*pairs, strict=True)
    return torch.stack(squares, 2), torch.stack(dots, 2)


def _cosine(squares: Tensor, dots: Tensor, lengths: Tensor) -> Tensor:
    """Return the cosines, 0 where either side is 0: squared norms and inner products (n, K, …)."""
    product = (squares.double() * lengths.double()).sqrt()
    return torch.where(product > 0, dots / torch.where(product > 0, product, 1), 0)


def _none(model: nn.Module) -> Directions:
    """Return one update that moved nothing."""
    return {k: p.detach().new_zeros(1, *p.shape) for k, p in trainable(model).items()}
