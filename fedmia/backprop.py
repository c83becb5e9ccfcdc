"""Backpropagation through fully connected ReLU networks, written out.

On networks of this size autograd's bookkeeping takes about as long as the arithmetic. Written out,
a step needs no graph, and every gradient is written where the optimiser reads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss


@dataclass(frozen=True)
class _Layer:
    """Weight (out, in) and bias (out,) of a layer, and where their gradients go."""

    weight: Tensor
    bias: Tensor | None
    to_weight: Tensor
    to_bias: Tensor | None


class DenseNetwork:
    """A network of linear layers with ReLU between them, on flattened input.

    Parameters
    ----------
    linear
        The layers, from the input on.
    grad
        One vector for the gradients of all weights and biases, in the order of the layers.
    """

    def __init__(self, linear: Sequence[nn.Linear], grad: Tensor) -> None:
        self._layers: list[_Layer] = []
        start = 0
        for layer in linear:
            places: list[Tensor | None] = []
            for parameter in (layer.weight, layer.bias):
                if parameter is None:
                    places.append(None)
                    continue
                end = start + parameter.numel()
                places.append(grad[start:end].view_as(parameter))
                start = end
            to_weight, to_bias = places
            assert to_weight is not None
            bias = None if layer.bias is None else layer.bias.data
            self._layers.append(_Layer(layer.weight.data, bias, to_weight, to_bias))

    @classmethod
    def of(cls, module: nn.Module, grad: Tensor) -> "DenseNetwork | None":
        """Return the network that a module is, ``None`` if it is anything else.

        All its parameters must be trainable, none shared, and no hook registered.

        Parameters
        ----------
        module
            Any module.
        grad
            Shape (parameters,), for the gradients in the order of ``module.parameters()``.
        """
        if type(module) is not nn.Sequential or _hooked(module):
            return None
        children = list(module)
        if children and type(children[0]) is nn.Flatten and children[0].start_dim == 1:
            children = children[1:]
        kinds = [type(child) for child in children]
        expected = [(nn.Linear, nn.ReLU)[i % 2] for i in range(len(kinds))]
        linear = [child for child in children if isinstance(child, nn.Linear)]
        own = [p for layer in linear for p in layer.parameters()]
        alone = len({id(p) for p in own}) == len(own) and all(p.requires_grad for p in own)
        if len(kinds) % 2 == 0 or kinds != expected or not alone:
            return None
        return cls(linear, grad)

    @torch.no_grad()
    def backward(self, x: Tensor, y: Tensor) -> Tensor:
        """Write the gradient of the mean cross-entropy of a batch in place, and return the loss.

        Parameters
        ----------
        x, y
            Features (n, ...) and labels (n,).
        """
        inputs = [x.flatten(1)]
        for layer in self._layers[:-1]:
            inputs.append(_apply(layer, inputs[-1]).relu_())
        log_p = torch.log_softmax(_apply(self._layers[-1], inputs[-1]), dim=1)
        upstream = log_p.exp()
        upstream.scatter_add_(1, y[:, None], upstream.new_full((len(y), 1), -1.0))
        upstream /= len(y)
        for place in range(len(self._layers) - 1, -1, -1):
            layer, below = self._layers[place], inputs[place]
            torch.mm(upstream.t(), below, out=layer.to_weight)
            if layer.to_bias is not None:
                torch.sum(upstream, 0, out=layer.to_bias)
            if place:
                upstream = (upstream @ layer.weight).mul_(below > 0)
        return nll_loss(log_p, y)


def _apply(layer: _Layer, x: Tensor) -> Tensor:
    if layer.bias is None:
        return x @ layer.weight.t()
    return torch.addmm(layer.bias, x, layer.weight.t())


def _hooked(module: nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(part, kind) for part in module.modules() for kind in kinds)
