"""Backpropagation through fully connected ReLU networks, written out.

On networks of this size autograd's bookkeeping takes about as long as the arithmetic. Written out,
a step needs no graph. Per record, with ``z_l = W_l a_l + b_l`` and ``a_{l+1} = max(z_l, 0)``, the
gradient of the cross-entropy is ``δ_L = softmax(z_L) − e_y`` and, below,
``δ_l = 1[a_{l+1} > 0] · W_{l+1}ᵀ δ_{l+1}`` (D. Rumelhart, G. Hinton, R. Williams, Nature 323,
1986).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

Residual = Callable[[Tensor], Tensor]
"""Gradients ``δ_L`` (n, outputs) of each record's loss in its logits, given these (n, outputs)."""

Factors = Callable[[Tensor], Tensor]
"""What the inputs of a hidden layer are multiplied by, given these; of their shape."""


class Pass(NamedTuple):
    """By layer, the inputs ``a_l`` (n, inputs) and ``δ_l`` (n, outputs); the losses, shape (n,)."""

    inputs: list[Tensor]
    deltas: list[Tensor]
    losses: Tensor


def chain_of(module: nn.Module) -> tuple[nn.Linear, ...]:
    """Return the layers of a chain ``flatten, linear, (ReLU, linear)*``; none of anything else.

    The flattening may be missing. All weights and biases must be there, trainable and not shared,
    and no hook registered.
    """
    if type(module) is not nn.Sequential or _hooked(module):
        return ()
    children = list(module)
    if children and repr(children[0]) == repr(nn.Flatten(1, -1)):
        children = children[1:]
    layers = tuple(child for child in children if type(child) is nn.Linear)
    alternating = [nn.Linear, *[nn.ReLU, nn.Linear] * (len(layers) - 1)]
    own = {p for layer in layers for p in layer.parameters() if p.requires_grad}
    alone = len(own) == 2 * len(layers)
    return layers if layers and alone and [*map(type, children)] == alternating else ()


def forward(
    layers: Sequence[nn.Linear], x: Tensor, factors: Factors | None = None
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Return the inputs of every layer, the logits, and the factors of the hidden inputs, if any.

    Parameters
    ----------
    layers
        Of the chain, from the input on.
    x
        Features (n, *input_shape).
    factors
        Scales the hidden inputs, as dropout does.
    """
    inputs, used = [x.flatten(1)], []
    for layer in layers[:-1]:
        inputs.append(linear(inputs[-1], layer.weight, layer.bias).relu_())
        if factors is not None:
            used.append(factors(inputs[-1]))
            inputs[-1].mul_(used[-1])
    return inputs, linear(inputs[-1], layers[-1].weight, layers[-1].bias), used


def backward(
    layers: Sequence[nn.Linear],
    inputs: Sequence[Tensor],
    delta: Tensor,
    factors: Sequence[Tensor] = (),
) -> list[Tensor]:
    """Return ``δ_l`` of every layer, given that of the last and what :func:`forward` returned."""
    deltas = [delta]
    for i in range(len(layers) - 1, 0, -1):
        delta = (delta @ layers[i].weight).mul_(inputs[i] > 0)
        if factors:
            delta.mul_(factors[i - 1])
        deltas.append(delta)
    return deltas[::-1]


@torch.no_grad()
def backpropagate(layers: Sequence[nn.Linear], x: Tensor, y: Tensor) -> Pass:
    """Return what a batch gives, records apart.

    Parameters
    ----------
    layers
        Of the chain, from the input on.
    x, y
        Features (n, *input_shape) and labels (n,).
    """
    inputs, logits, _ = forward(layers, x)
    log_p = torch.log_softmax(logits, dim=1)
    delta = log_p.exp().scatter_add_(1, y[:, None], log_p.new_full((len(y), 1), -1.0))
    losses = -log_p.gather(1, y[:, None])[:, 0]
    return Pass(inputs, backward(layers, inputs, delta), losses)


class DenseNetwork:
    """A chain of linear layers and ReLUs whose gradients are written where they are read.

    Parameters
    ----------
    layers
        From the input on.
    grad
        One vector for the gradients of all weights and biases, in the order of the layers.
    """

    def __init__(self, layers: Sequence[nn.Linear], grad: Tensor) -> None:
        self._layers = layers
        self._to: list[tuple[Tensor, Tensor]] = []
        start = 0
        for layer in layers:
            middle = start + layer.weight.numel()
            end = middle + layer.bias.numel()
            self._to.append((grad[start:middle].view_as(layer.weight), grad[middle:end]))
            start = end

    @classmethod
    def of(cls, module: nn.Module, grad: Tensor) -> "DenseNetwork | None":
        """Return the network that a module is, ``None`` if it is no chain (:func:`chain_of`).

        ``grad``, shape (parameters,), is for the gradients in the order of its parameters.
        """
        layers = chain_of(module)
        return cls(layers, grad) if layers else None

    @torch.no_grad()
    def backward(self, x: Tensor, y: Tensor) -> Tensor:
        """Write the gradient of the mean cross-entropy of a batch in place, and return the loss.

        Parameters
        ----------
        x, y
            Features (n, ...) and labels (n,).
        """
        inputs, deltas, losses = backpropagate(self._layers, x, y)
        self._write(inputs, deltas)
        return losses.mean()

    @torch.no_grad()
    def backward_through(
        self, x: Tensor, residual: Residual, factors: Factors | None = None
    ) -> None:
        """Write the gradient of the mean of losses of which only ``δ_L`` is known.

        Parameters
        ----------
        x
            Features (n, ...).
        residual
            Called once, without gradients recorded; what it returns is taken over.
        factors
            Of the hidden inputs.
        """
        inputs, logits, used = forward(self._layers, x, factors)
        self._write(inputs, backward(self._layers, inputs, residual(logits), used))

    def _write(self, inputs: Sequence[Tensor], deltas: Sequence[Tensor]) -> None:
        for below, delta, (to_weight, to_bias) in zip(inputs, deltas, self._to, strict=True):
            torch.mm(delta.div_(len(delta)).t(), below, out=to_weight)
            torch.sum(delta, 0, out=to_bias)


def _hooked(module: nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(part, kind) for part in module.modules() for kind in kinds)
