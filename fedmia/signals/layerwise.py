"""Reduce per-sample gradients layer by layer, without building them where that can be avoided.

For a layer ``z = W a + b`` with ``δ_i = ∂⟨logits_i, r_i⟩/∂z_i``, sample i's gradient is
``(δ_i a_iᵀ, δ_i)``: its squared norm is ``‖δ_i‖² (‖a_i‖² + 1)`` and its inner product with
``(U, c)`` is ``δ_iᵀ U a_i + δ_iᵀ c``. Layers that share weights over positions p (convolutions,
sequences) sum the outer products over p first; those are built for a few samples at a time.
"""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call
from torch.nn.grad import conv2d_weight

from fedmia.signals.gradients import Directions, trainable, unit_residual

Reduced = dict[str, tuple[Tensor, Tensor]]
"""Of each parameter of a layer: squared norms (n,) and inner products (n, K)."""

_OUTER_BYTES = 4 * 2**20
"""Memory for outer products at a time; small enough to stay near the processor's caches."""

_TILE_ROWS = 16
"""Fewer samples at a time are not worth reading the directions for."""

_TILE_MOST, _TILE = 48, (128, 64)
"""At most so many samples share a reading of so many outputs and inputs of the directions."""

_LARGE_PRODUCT = 2**22
"""Multiplications a sample from which a call for each costs less than unfolding them."""


class _Call(NamedTuple):
    input: Tensor
    version: int
    output: GradientEdge


def layerwise(
    model: nn.Module, x: Tensor, y: Tensor, directions: Directions
) -> tuple[Tensor, Tensor, Tensor]:
    """Reduce each layer's gradients from its input and the gradient of its output.

    Raises
    ------
    TypeError
        If a layer is of a kind whose gradient is not known here.
    ValueError
        If parameters are shared between layers, or a layer is not called exactly once, on one
        tensor whose rows are the samples and which nothing changes afterwards.
    """
    length, found = factors(model, x, y)
    reduced: Reduced = {}
    with torch.no_grad():
        for name, (layer, a, delta) in found.items():
            prefix = f"{name}." if name else ""
            own = {k: directions[prefix + k] for k in layer._parameters if prefix + k in directions}
            for k, both in _KINDS[type(layer)](layer, a, delta, own).items():
                reduced[prefix + k] = both
    K = next(iter(directions.values())).shape[0]
    unused = x.new_zeros(len(y)), x.new_zeros(len(y), K)
    squares, dots = zip(*(reduced.get(k, unused) for k in trainable(model)), strict=True)
    return length, torch.stack(squares, 1), torch.stack(dots, 2)


def factors(
    model: nn.Module, x: Tensor, y: Tensor
) -> tuple[Tensor, dict[str, tuple[nn.Module, Tensor, Tensor]]]:
    """Return what the gradients of n records are made of, layer by layer.

    Returns
    -------
    tuple
        ``‖∂ℓ_i/∂logits_i‖`` (n,) in float64; and by name each layer whose output matters, with its
        input and the gradient of ``⟨logits_i, r_i⟩`` with respect to its output.

    Raises
    ------
    TypeError, ValueError
        As :func:`layerwise`.
    """
    layers = _layers(model)
    calls: dict[nn.Module, _Call] = {}

    def record(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        if layer in calls:
            raise ValueError(f"{layer} is called more than once")
        calls[layer] = _Call(inputs[0], inputs[0]._version, get_gradient_edge(output))
        # Changing a view in place would lead the graph around the edge.
        return output.clone() if output._is_view() else output

    hooks = [layer.register_forward_hook(record) for layer in layers.values()]
    try:
        logits = model(x)
    finally:
        for hook in hooks:
            hook.remove()
    if missing := [name for name, layer in layers.items() if layer not in calls]:
        raise ValueError(f"layer {missing[0]} is not called")
    length, unit = unit_residual(logits, y)
    edges = [calls[layer].output for layer in layers.values()]
    deltas = torch.autograd.grad(logits, edges, unit, allow_unused=True)
    found = {}
    for (name, layer), delta in zip(layers.items(), deltas, strict=True):
        a, version, _ = calls[layer]
        if a._version != version or len(a) != len(y):
            raise ValueError(f"the input of layer {name} is not one unchanged row a sample")
        if delta is not None:
            found[name] = (layer, a.detach(), delta)
    return length, found


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that own trainable parameters, by name."""
    owners = {name.rpartition(".")[0] for name in trainable(model)}
    layers = {name: layer for name, layer in model.named_modules() if name in owners}
    for name, layer in layers.items():
        if type(layer) not in _KINDS or not set(layer._parameters) <= {"weight", "bias"}:
            raise TypeError(f"no closed form for layer {name} ({type(layer).__name__})")
    if len(list(model.named_parameters(remove_duplicate=False))) > len(list(model.parameters())):
        raise ValueError("parameters are shared between layers")
    return layers


def _linear(layer: nn.Module, a: Tensor, delta: Tensor, u: dict[str, Tensor]) -> Reduced:
    if a.ndim > 2:
        return _outer(lambda some: some.flatten(1, -2).mT, a, delta.flatten(1, -2).mT, u)
    energy = delta.square().sum(1)
    reduced: Reduced = {}
    if "weight" in u:
        K, outputs, inputs = u["weight"].shape
        # Contract the longer side first: what stands in between is (n, K, shorter side).
        if outputs <= inputs:
            half, rest = a @ u["weight"].reshape(K * outputs, inputs).T, delta
        else:
            half, rest = delta @ u["weight"].transpose(0, 1).reshape(outputs, K * inputs), a
        dots = (half.view(len(a), K, min(outputs, inputs)) * rest[:, None]).sum(2)
        reduced["weight"] = energy * a.square().sum(1), dots
    if "bias" in u:
        reduced["bias"] = energy, delta @ u["bias"].T
    return reduced


def _convolution(layer: nn.Module, a: Tensor, delta: Tensor, u: dict[str, Tensor]) -> Reduced:
    assert isinstance(layer, nn.Conv2d)
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise TypeError(f"no closed form for the padding of {layer}")
    size = layer.weight.numel()
    if "weight" in u and 16 * size <= _OUTER_BYTES and size * delta[0, 0].numel() >= _LARGE_PRODUCT:
        return _one_call_each(layer, a, delta, u)
    unfold = nn.Unfold(layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return _outer(unfold, a, delta.flatten(2), u, layer.groups)


def _one_call_each(layer: nn.Conv2d, a: Tensor, delta: Tensor, u: dict[str, Tensor]) -> Reduced:
    """Have each sample's gradient from the library, which needs no unfolded copy of its input."""
    shape, geometry = layer.weight.shape, (layer.stride, layer.padding, layer.dilation)

    def gradient(one: Tensor, d: Tensor) -> Tensor:
        g: Tensor = conv2d_weight(one, shape, d, *geometry, layer.groups)  # type: ignore[no-untyped-call]
        return g

    samples = list(zip(torch.split(a, 1), torch.split(delta, 1), strict=True))
    rows = _OUTER_BYTES // (4 * shape.numel())
    parts = [
        _reduce(torch.stack([gradient(*pair) for pair in samples[i : i + rows]]), u["weight"])
        for i in range(0, len(samples), rows)
    ]
    squares, dots = zip(*parts, strict=True)
    reduced = {"weight": (torch.cat(squares), torch.cat(dots))}
    if "bias" in u:
        reduced["bias"] = _reduce(delta.sum((2, 3)), u["bias"])
    return reduced


def _outer(
    columns: Callable[[Tensor], Tensor],
    a: Tensor,
    delta: Tensor,
    u: dict[str, Tensor],
    groups: int = 1,
) -> Reduced:
    """Reduce ``Σ_p δ_p columns(a)_pᵀ``, a few samples at a time.

    ``columns(a)`` has shape (n, inputs, positions) and ``delta`` (n, outputs, positions).
    """
    _, outputs, positions = delta.shape
    inputs = prod(u["weight"].shape[2:]) if "weight" in u else 0
    rows = max(1, _OUTER_BYTES // (4 * (outputs * inputs + groups * inputs * positions + 1)))
    if rows < _TILE_ROWS and groups == 1:
        return _outer_of_large(columns, a, delta, u)
    parts = []
    for some, d in zip(torch.split(a, rows), torch.split(delta, rows), strict=True):
        reduced: Reduced = {}
        if inputs:
            c = columns(some).reshape(len(d), groups, -1, positions).mT
            outer = d.reshape(len(d), groups, -1, positions) @ c
            reduced["weight"] = _reduce(outer, u["weight"])
        if "bias" in u:
            reduced["bias"] = _reduce(d.sum(2), u["bias"])
        parts.append(reduced)
    return {
        k: (torch.cat([part[k][0] for part in parts]), torch.cat([part[k][1] for part in parts]))
        for k in u
    }


def _outer_of_large(
    columns: Callable[[Tensor], Tensor], a: Tensor, delta: Tensor, u: dict[str, Tensor]
) -> Reduced:
    """Do the same for a weight whose directions are too large to be read for a few samples.

    A part of the weight is taken at a time, for as many samples as there are, so that their outer
    products and the directions stay in the caches.
    """
    directions = u["weight"].flatten(2)
    K, outputs, inputs = directions.shape
    positions = delta.shape[2]
    # ‖Σ_p δ_p c_pᵀ‖² = Σ_{p,q} ⟨δ_p, δ_q⟩ ⟨c_p, c_q⟩ takes less where there are few positions.
    by_pairs = positions**2 * (outputs + inputs) < outputs * inputs
    parts = []
    for some in torch.arange(len(a)).tensor_split(-(-len(a) // _TILE_MOST)):
        rows = slice(int(some[0]), int(some[-1]) + 1)
        d, c = delta[rows], columns(a[rows])
        squares, dots = d.new_zeros(len(d)), d.new_zeros(K, len(d))
        if by_pairs:
            squares = (_pairs(d) * _pairs(c)).sum((1, 2)).clamp_min(0).to(d.dtype)
        for i in range(0, outputs if K or not by_pairs else 0, _TILE[0]):
            for j in range(0, inputs, _TILE[1]):
                left, right = d[:, i : i + _TILE[0]], c[:, j : j + _TILE[1]]
                outer = torch.bmm(left, right.mT).flatten(1)
                part = directions[:, i : i + _TILE[0], j : j + _TILE[1]].flatten(1)
                dots.addmm_(part, outer.T)
                if not by_pairs:
                    squares += torch.linalg.vector_norm(outer, dim=1).square()
        parts.append((squares, dots.T))
    reduced = {"weight": (torch.cat([s for s, _ in parts]), torch.cat([d for _, d in parts]))}
    if "bias" in u:
        reduced["bias"] = _reduce(delta.sum(2), u["bias"])
    return reduced


def _pairs(values: Tensor) -> Tensor:
    """Return the inner products of values (n, d, positions) at all pairs of positions, float64."""
    values = values.double()
    return values.mT @ values


def _normalisation(layer: nn.Module, a: Tensor, delta: Tensor, u: dict[str, Tensor]) -> Reduced:
    """Reduce layers that scale and shift: the scale's gradient is ``δ`` times the unscaled."""
    neutral = {
        k: torch.ones_like(p) if k == "weight" else torch.zeros_like(p)
        for k, p in layer.named_parameters()
    }
    whole = {"weight": delta * functional_call(layer, neutral, (a,)), "bias": delta}
    if isinstance(layer, nn.LayerNorm):  # scales the last dimensions, the others the channels
        summed = tuple(range(1, a.ndim - len(layer.normalized_shape)))
    else:
        summed = tuple(range(2, a.ndim))
    return {k: _reduce(whole[k].sum(summed) if summed else whole[k], d) for k, d in u.items()}


def _reduce(gradients: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    g = gradients.flatten(1)
    dots = (directions.flatten(1) @ g.T).T  # faster than g @ directions.T
    return torch.linalg.vector_norm(g, dim=1).square(), dots


_KINDS: dict[type, Callable[[nn.Module, Tensor, Tensor, dict[str, Tensor]], Reduced]] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.GroupNorm: _normalisation,
    nn.LayerNorm: _normalisation,
    nn.BatchNorm1d: _normalisation,
    nn.BatchNorm2d: _normalisation,
    nn.InstanceNorm1d: _normalisation,
    nn.InstanceNorm2d: _normalisation,
}
