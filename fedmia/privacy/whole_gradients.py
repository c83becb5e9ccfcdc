"""The gradient of every single record, for any model: together where torch can, else in turn."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

log = logging.getLogger(__name__)


def whole_gradients(
    module: nn.Module, parameters: Sequence[nn.Parameter], x: Tensor, y: Tensor
) -> list[Tensor]:
    """Return the gradients of every record's cross-entropy, a record a call of the module.

    Parameters
    ----------
    module
        Called on batches of one record.
    parameters
        Of the module; what it does not use has gradient 0.
    x, y
        Features (n, *input_shape) and labels (n,); n ≥ 1.

    Returns
    -------
    list
        For each parameter, shape (n, *parameter.shape).
    """
    names = {p: name for name, p in module.named_parameters()}
    values = {names[p]: p.detach() for p in parameters}

    def loss(params: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(functional_call(module, params, (one[None],)), label[None])

    try:
        found = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")(values, x, y)
    except RuntimeError as error:  # only says that torch cannot batch this model
        log.info("records are differentiated in turn (%s)", str(error).partition("\n")[0])
        return _in_turn(module, parameters, x, y)
    return [found[names[p]] for p in parameters]


def _in_turn(
    module: nn.Module, parameters: Sequence[nn.Parameter], x: Tensor, y: Tensor
) -> list[Tensor]:
    rows = [
        torch.autograd.grad(
            cross_entropy(module(one), label),
            list(parameters),
            allow_unused=True,
            materialize_grads=True,
        )
        for one, label in zip(torch.split(x, 1), torch.split(y, 1), strict=True)
    ]
    return [torch.stack(column) for column in zip(*rows, strict=True)]
