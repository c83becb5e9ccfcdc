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
        """Reduce the gradients, split by the P trainable parameters.

        Returns ``‖∂ℓ_i/∂z_i‖`` (n,) in float64, squared gradient norms (n, P) and inner products
        with the directions (n, K, P), the last two to be multiplied by the first (squared).
        """
        ...


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that training moves, by name."""
    return {k: p for k, p in model.named_parameters() if p.requires_grad}


def nowhere(model: nn.Module) -> dict[str, Tensor]:
    """Return no directions at all (K = 0), for routes that are to give norms only."""
    return {k: p.detach().new_zeros(0, *p.shape) for k, p in trainable(model).items()}


def residual(logits: Tensor, y: Tensor) -> Tensor:
    """Return ``∂ℓ/∂z = softmax(z) − e_y``, (n, classes) in float64.

    ``p_y − 1`` is taken as minus the sum of the other probabilities, which does not round to 0.
    """
    labels = y[:, None]
    others = logits.detach().double().softmax(1).scatter(1, labels, 0.0)
    return others.scatter(1, labels, -others.sum(1, keepdim=True))


def unit_residual(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lengths and directions of ``softmax(z) − e_y``: (n,) float64, (n, classes).

    A residual of length 0 has direction 0.
    """
    r = residual(logits, y)
    length = torch.linalg.vector_norm(r, dim=1)
    unit = r / torch.where(length == 0, 1.0, length)[:, None]
    return length, unit.to(logits.dtype)


def one_by_one(
    model: nn.Module, x: Tensor, y: Tensor, directions: Directions
) -> tuple[Tensor, Tensor, Tensor]:
    """Go through the candidates with one backward pass each: slow, and right for any model."""
    lengths, squares, dots = [], [], []
    for i in range(len(y)):
        length, gradients = written_in_turn(model, x[i : i + 1], y[i : i + 1])
        lengths.append(length)
        squares.append(torch.stack([g.double().square().sum(1) for g in gradients.values()], 1))
        dots.append(torch.stack([g @ directions[k].flatten(1).T for k, g in gradients.items()], 2))
    return torch.cat(lengths), torch.cat(squares), torch.cat(dots)


def vectorised(
    model: nn.Module, x: Tensor, y: Tensor, directions: Directions
) -> tuple[Tensor, Tensor, Tensor]:
    """Take the chunk's per-sample gradients with ``vmap(grad)`` and a matrix product each."""
    lengths, flat = written(model, x, y)
    squares = [torch.linalg.vector_norm(g, dim=1).square() for g in flat.values()]
    dots = [g @ directions[k].flatten(1).T for k, g in flat.items()]
    return lengths, torch.stack(squares, 1), torch.stack(dots, 2)


def written(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return ``‖∂ℓ_i/∂z_i‖`` (n,), and the gradients of ``⟨z_i, r_i⟩`` by parameter, (n, d)."""
    parameters = trainable(model)

    def projected(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = functional_call(model, parameters, (x[None],))
        length, unit = unit_residual(logits, y[None])
        return (logits * unit).sum(), length[0]

    per_sample = vmap(grad(projected, has_aux=True), in_dims=(None, 0, 0))
    detached = {k: p.detach() for k, p in parameters.items()}
    gradients, lengths = per_sample(detached, x, y)
    return lengths, {k: gradients[k].flatten(1) for k in parameters}


def written_in_turn(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the same by one backward pass a record: slow, and right for any model."""
    parameters = trainable(model)
    lengths, rows = [], []
    for i in range(len(y)):
        logits = model(x[i : i + 1])
        length, unit = unit_residual(logits, y[i : i + 1])
        pieces = torch.autograd.grad(logits, list(parameters.values()), unit, allow_unused=True)
        rows.append(
            [
                torch.zeros_like(p).flatten() if g is None else g.flatten()
                for p, g in zip(parameters.values(), pieces, strict=True)
            ]
        )
        lengths.append(length[0])
    columns = zip(*rows, strict=True)
    return torch.stack(lengths), dict(zip(parameters, map(torch.stack, columns), strict=True))
