"""Norms of per-sample gradients and their inner products with many directions at once.

Every route differentiates ``⟨z_i, r_i⟩`` instead of the cross-entropy ``ℓ_i``, where ``r_i`` is
the unit vector along ``∂ℓ_i/∂z_i = softmax(z_i) − e_y``. The gradient has the same direction, and
its length, multiplied back in float64, does not underflow for very confident candidates.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

Directions = Mapping[str, Tensor]
"""K directions in parameter space: for each trainable parameter, shape (K, *its shape)."""


class Route(Protocol):
    """A way to reduce the per-sample gradients of a chunk of n candidates."""

    __name__: str

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, directions: Directions
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``‖∂ℓ_i/∂z_i‖`` (n,) in float64, gradient norms (n,), inner products (n, K)."""
        ...


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that training moves, by name."""
    return {k: p for k, p in model.named_parameters() if p.requires_grad}


def unit_residual(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lengths and directions of ``softmax(z) − e_y``: (n,) float64, (n, classes).

    ``p_y − 1`` is taken as minus the sum of the other probabilities, which does not round to 0.
    A residual of length 0 has direction 0.
    """
    labels = y[:, None]
    others = logits.detach().double().softmax(1).scatter(1, labels, 0.0)
    residual = others.scatter(1, labels, -others.sum(1, keepdim=True))
    length = torch.linalg.vector_norm(residual, dim=1)
    unit = residual / torch.where(length == 0, 1.0, length)[:, None]
    return length, unit.to(logits.dtype)


def one_by_one(
    model: nn.Module, x: Tensor, y: Tensor, directions: Directions
) -> tuple[Tensor, Tensor, Tensor]:
    """Go through the candidates with one backward pass each: slow, and right for any model."""
    parameters = trainable(model)
    flat = _flatten(directions)
    lengths, norms, dots = [], [], []
    for i in range(len(y)):
        logits = model(x[i : i + 1])
        length, unit = unit_residual(logits, y[i : i + 1])
        pieces = torch.autograd.grad(logits, list(parameters.values()), unit, allow_unused=True)
        gradient = torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).flatten()
                for g, p in zip(pieces, parameters.values(), strict=True)
            ]
        )
        lengths.append(length[0])
        norms.append(torch.linalg.vector_norm(gradient, dtype=torch.float64))
        dots.append(flat @ gradient)
    return torch.stack(lengths), torch.stack(norms), torch.stack(dots)


def vectorised(
    model: nn.Module, x: Tensor, y: Tensor, directions: Directions
) -> tuple[Tensor, Tensor, Tensor]:
    """Take the chunk's per-sample gradients with ``vmap(grad)`` and one matrix product."""
    parameters = trainable(model)

    def projected(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = functional_call(model, parameters, (x[None],))
        length, unit = unit_residual(logits, y[None])
        return (logits * unit).sum(), length[0]

    per_sample = vmap(grad(projected, has_aux=True), in_dims=(None, 0, 0))
    detached = {k: p.detach() for k, p in parameters.items()}
    gradients, lengths = per_sample(detached, x, y)
    flat = torch.cat([gradients[k].flatten(1) for k in parameters], dim=1)
    return lengths, torch.linalg.vector_norm(flat, dim=1), flat @ _flatten(directions).T


def _flatten(directions: Directions) -> Tensor:
    return torch.cat([d.flatten(1) for d in directions.values()], dim=1)
