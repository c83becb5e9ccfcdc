"""The sum of clipped per-record gradients, ``Σ_i ∇ℓ_i · min(1, C/‖∇ℓ_i‖)``.

Z. Bu, Y.-X. Wang, S. Zha, G. Karypis, *Differentially Private Optimization on Large Model at Small
Cost*, ICML 2023 (arXiv 2210.00038), book-keeping: one forward pass, and a backward pass that stops
at the outputs of the layers. For a layer ``z = W a + b`` with ``δ_i = ∂ℓ_i/∂z_i``, record i's
gradient is ``(δ_i a_iᵀ, δ_i)``, of squared norm ``‖δ_i‖² (‖a_i‖² + 1)``, and the clipped sum with
factors c is ``(c·δ)ᵀ a``: the gradient of a single record is never built. Other layers build theirs
by the rules of Opacus, some records at a time. Chains of linear layers need no automatic
differentiation (:mod:`fedmia.backprop`). Where a layer has no such rule, is called more than
once or shares its parameters, the whole gradient of each record is built
(:mod:`fedmia.privacy.whole_gradients`).

The norm is over all trainable parameters together.
"""

import logging
import math
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.functional import cross_entropy
from torch.utils.hooks import RemovableHandle

from fedmia.backprop import backpropagate, chain_of
from fedmia.privacy.whole_gradients import whole_gradients
from fedmia.training import FlatModel

log = logging.getLogger(__name__)

_BYTES = 2**28
"""Memory for gradients of single records at a time."""

_MARGIN = 1 - 2.0**-20
"""Of the clip, so that rounding in float32 does not carry a norm over it."""

_INSTANCE = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, *_INSTANCE)
_RULES = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_NORMS)
"""Layers for which Opacus has a rule that builds the gradient of every record."""


class _UnsupportedError(Exception):
    """The layers cannot be treated one by one."""


class _Call(NamedTuple):
    input: Tensor
    version: int
    output: GradientEdge


class _Built(NamedTuple):
    """The gradients of every record, shape (n, *shape), and where their sum goes."""

    gradients: Tensor
    grad: Tensor

    def squares(self) -> Tensor:
        return self.gradients.flatten(1).square().sum(1)

    def add(self, factors: Tensor) -> None:
        self.grad.view(-1).addmv_(self.gradients.flatten(1).T, factors)


class _Outer(NamedTuple):
    """``δ`` (n, outputs) and ``a`` (n, inputs) of a linear layer, and where the sums go."""

    delta: Tensor
    a: Tensor
    weight: Tensor | None
    bias: Tensor | None

    def squares(self) -> Tensor:
        energy: Tensor = torch.linalg.vector_norm(self.delta, dim=1).square_()
        if self.weight is None:
            return energy
        inputs: Tensor = torch.linalg.vector_norm(self.a, dim=1).square_()
        return energy.mul_(inputs if self.bias is None else inputs.add_(1))

    def add(self, factors: Tensor) -> None:
        if self.weight is not None:
            self.weight.addmm_((self.delta * factors[:, None]).T, self.a)
        if self.bias is not None:
            self.bias.addmv_(self.delta.T, factors)


class _Chain(NamedTuple):
    """The same of all layers of a chain together."""

    inputs: list[Tensor]
    deltas: list[Tensor]
    weights: list[Tensor]
    biases: list[Tensor]

    def squares(self) -> Tensor:
        rows = [torch.linalg.vector_norm(t, dim=1) for t in (*self.deltas, *self.inputs)]
        energy, a = torch.stack(rows).square_().chunk(2)
        return a.add_(1).mul_(energy).sum(0)

    def add(self, factors: Tensor) -> None:
        scaled = torch.cat(self.deltas, 1).mul_(factors[:, None])
        sizes = [len(bias) for bias in self.biases]
        pieces = zip(torch.split(scaled, sizes, 1), torch.split(scaled.sum(0), sizes), strict=True)
        rows = zip(self.weights, self.biases, self.inputs, pieces, strict=True)
        for weight, bias, a, (delta, total) in rows:
            weight.addmm_(delta.T, a)
            bias.add_(total)


class ClippedGradient:
    """Adds clipped sums to the ``grad`` of a model.

    To be entered before it is called: what it hangs on the model's layers is taken off at the end.

    Parameters
    ----------
    model
        Its layers have to treat every record by itself; see :func:`mixes_records`.
    """

    def __init__(self, model: FlatModel) -> None:
        self.model = model
        self._trainable = [p for p in model.module.parameters() if p.requires_grad]
        pieces = torch.split(model.grad, [p.numel() for p in self._trainable])
        views = [g.view_as(p) for p, g in zip(self._trainable, pieces, strict=True)]
        self._grads: dict[Tensor, Tensor] = dict(zip(self._trainable, views, strict=True))
        self._chain = chain_of(model.module)
        self._layers: list[nn.Module] = []
        self._calls: dict[nn.Module, _Call] = {}
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        if self._chain:
            return self
        try:
            self._layers = _layers(self.model.module)
        except _UnsupportedError as reason:
            self._give_up(reason)
        self._hooks = [layer.register_forward_hook(self._record) for layer in self._layers]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._calls = [], {}

    def __call__(self, x: Tensor, y: Tensor, clip: float) -> Tensor:
        """Add the clipped sum to ``grad`` and return the norms before clipping, shape (n,).

        A record whose gradient is not finite adds nothing, and its norm is told as infinite: else
        one record could turn the whole sum into something that no noise hides.

        Parameters
        ----------
        x, y
            Features (n, *input_shape) and labels (n,) on the model's device; n may be 0. A
            record's loss is its cross-entropy.
        clip
            C, above 0.
        """
        norms, start = [], 0
        while start < len(y):
            rows = self._rows(len(y))
            norms.append(self._add(x[start : start + rows], y[start : start + rows], clip))
            start += rows
        return torch.cat(norms) if norms else self.model.grad.new_zeros(0)

    @property
    def route(self) -> str:
        """How the gradients are had, as far as is known: ``chain``, ``layers`` or ``whole``."""
        return "chain" if self._chain else "layers" if self._layers else "whole"

    def _rows(self, most: int) -> int:
        """Return how many records fit the memory."""
        if self._chain:
            return most
        built = [layer for layer in self._layers if type(layer) is not nn.Linear]
        size = sum(p.numel() for layer in built for p in layer.parameters())
        size = size if self._layers else self.model.flat.numel()
        return max(1, min(most, _BYTES // (4 * size))) if size else most

    def _add(self, x: Tensor, y: Tensor, clip: float) -> Tensor:
        parts = self._parts(x, y)
        with torch.no_grad():
            norms: Tensor = parts[0].squares()
            for part in parts[1:]:
                norms += part.squares()
            norms.sqrt_()
            if math.isfinite(norms.sum()):
                factors = (_MARGIN * clip / norms).clamp_(max=1.0)
                for part in parts:
                    part.add(factors)
                return norms
        finite = norms.isfinite()
        norms[~finite] = torch.inf
        if finite.any():
            norms[finite] = self._add(x[finite], y[finite], clip)
        return norms

    def _parts(self, x: Tensor, y: Tensor) -> list[Any]:
        if self._chain:
            weights = [self._grads[layer.weight] for layer in self._chain]
            biases = [self._grads[layer.bias] for layer in self._chain]
            return [_Chain(*backpropagate(self._chain, x, y)[:2], weights, biases)]
        if self._layers:
            try:
                return self._parts_of_layers(x, y)
            except _UnsupportedError as reason:
                self._give_up(reason)
        built = whole_gradients(self.model.module, self._trainable, x, y)
        return [_Built(g, self._grads[p]) for p, g in zip(self._trainable, built, strict=True)]

    def _give_up(self, reason: Exception) -> None:
        log.info("the whole gradient of each record is built (%s)", reason)
        self.__exit__()
        self._layers = []

    def _record(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        if layer in self._calls or len(inputs) != 1:
            raise _UnsupportedError(f"{layer} is called more than once, or on more than a tensor")
        (a,) = inputs
        self._calls[layer] = _Call(a, a._version, get_gradient_edge(output))
        # Changing a view in place would lead the graph around the edge.
        return output.clone() if output._is_view() else output

    def _parts_of_layers(self, x: Tensor, y: Tensor) -> list[Any]:
        self._calls.clear()
        loss = cross_entropy(self.model.module(x), y, reduction="sum")
        if len(self._calls) < len(self._layers):
            raise _UnsupportedError("a layer is not called")
        edges = [call.output for call in self._calls.values()]
        deltas = torch.autograd.grad(loss, edges, allow_unused=True)
        parts: list[Any] = []
        with torch.no_grad():
            for (layer, call), delta in zip(self._calls.items(), deltas, strict=True):
                a = call.input
                if a._version != call.version or len(a) != len(y):
                    raise _UnsupportedError(f"the input of {layer} is not one unchanged row each")
                if delta is not None:
                    parts += self._parts_of(layer, a, delta)
        return parts

    def _parts_of(self, layer: nn.Module, a: Tensor, delta: Tensor) -> list[Any]:
        if type(layer) is nn.Linear and a.ndim == 2:
            bias = None if layer.bias is None else self._grads.get(layer.bias)
            return [_Outer(delta, a, self._grads.get(layer.weight), bias)]
        from opacus.grad_sample import GradSampleModule  # takes seconds to import

        built = GradSampleModule.GRAD_SAMPLERS[type(layer)](layer, [a], delta)
        return [_Built(gradients, self._grads[p]) for p, gradients in built.items()]


def mixes_records(module: nn.Module, x: Tensor) -> bool:
    """Whether what a module returns for one record depends on another, to first order.

    Parameters
    ----------
    module
        In the mode in which it is trained.
    x
        Two records or more, shape (n, *input_shape), in floating point.
    """
    x = x.detach().clone().requires_grad_()
    (moved,) = torch.autograd.grad(module(x)[0].sum(), x)
    return bool(moved[1:].any())


def _layers(module: nn.Module) -> list[nn.Module]:
    """Return the layers that own trainable parameters.

    Raises
    ------
    _UnsupportedError
        If there is no rule for one of them, or they share parameters.
    """
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    if len(names) > len(list(module.parameters())):
        raise _UnsupportedError("layers share parameters")
    layers = [
        layer
        for layer in module.modules()
        if any(p.requires_grad for p in layer.parameters(recurse=False))
    ]
    for layer in layers:
        odd = type(layer) not in _RULES or not set(layer._parameters) <= {"weight", "bias"}
        if odd or getattr(layer, "padding_mode", "zeros") != "zeros":
            raise _UnsupportedError(f"no rule for {layer}")
    return layers
