"""Which route a model's gradients take, and how many candidates go through at a time."""

import copy
import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedmia.signals.gradients import Route, one_by_one, trainable, vectorised
from fedmia.signals.layerwise import layerwise

logger = logging.getLogger(__name__)

_CHUNK_ROWS = 512
_CHUNK_BYTES = 64 * 2**20
"""Memory for a chunk's activations and gradients; large models get several times their weights."""

_CHUNK_WEIGHTS = 6


def plan_route(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Route, int]:
    """Return the route for a model's gradients and the rows to give it at a time."""
    route = choose_route(model, x, y)
    return route, chunk_size(model, x, route)


def choose_route(
    model: nn.Module, x: Tensor, y: Tensor, routes: Sequence[Route] = (layerwise, vectorised)
) -> Route:
    """Return the first route that agrees with :func:`one_by_one` on a few of the candidates."""
    few = torch.linspace(0, len(y) - 1, min(3, len(y))).long()
    for route in routes:
        try:
            if _fits(route, model, x[few], y[few]):
                return route
            reason = "its numbers differ from one backward pass per candidate"
        except Exception as error:  # any failure only says that the route is not for this model
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        logger.info(
            "gradient signals: route '%s' is not for this model (%s)", route.__name__, reason
        )
    logger.warning("gradient signals: one backward pass per candidate, which is slow")
    return one_by_one


def _fits(route: Route, model: nn.Module, x: Tensor, y: Tensor) -> bool:
    """Return whether a route agrees with :func:`one_by_one`, compared in float64 if possible.

    In float32, rounding alone puts some units of a deep network on the other side of a ReLU's kink.
    """
    try:
        return _agrees(route, copy.deepcopy(model).double(), x.double(), y, 1e-6)
    except Exception:  # some layers insist on float32, which then has to do
        return _agrees(route, model, x, y, 1e-3)


def _agrees(route: Route, model: nn.Module, x: Tensor, y: Tensor, tolerance: float) -> bool:
    """Return whether numbers differ by no more than a fraction of the largest of their kind."""
    for measured, expected in zip(
        _on_trial(route, model, x, y), _on_trial(one_by_one, model, x, y), strict=True
    ):
        scale = float(expected.abs().nan_to_num(0.0, 0.0, 0.0).max())
        if not torch.allclose(
            measured.double(), expected.double(), rtol=0, atol=tolerance * scale, equal_nan=True
        ):
            return False
    return True


def _on_trial(route: Route, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Return residual lengths, gradient norms and inner products with two directions."""
    directions = {
        k: torch.stack([p.detach(), torch.ones_like(p)]) for k, p in trainable(model).items()
    }
    lengths, squares, dots = route(model, x, y, directions)
    return lengths, squares.sqrt(), dots


def chunk_size(model: nn.Module, x: Tensor, route: Route | None = None) -> int:
    """Return how many candidates to take at a time, from what one of them keeps in memory."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = model(x[:1].clone())  # a slice would count the storage of all
    activations = sum(kept.values()) + int(logits.nbytes)
    gradients = sum(p.nbytes for p in trainable(model).values()) if route is vectorised else 0
    room = max(_CHUNK_BYTES, _CHUNK_WEIGHTS * sum(p.nbytes for p in model.parameters()))
    return max(1, min(_CHUNK_ROWS, room // (3 * (activations + gradients))))
