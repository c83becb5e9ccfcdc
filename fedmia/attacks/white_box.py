"""What a white box shows of a record: gradients, activations, logits, label and loss.

The gradient of a layer's weights is kept as it arises, ``∇_W ℓ = Σ_p δ_p h_pᵀ`` over the positions
p at which the layer is used: one for a dense layer, every pixel of the output for a convolution.
Written out it would be many times as large.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, unfold

from fedmia.attacks.base import NotApplicableError
from fedmia.records import Examples
from fedmia.signals import Signals
from fedmia.signals.forward import loss_and_gap
from fedmia.signals.gradients import unit_residual

Features = dict[str, Tensor]
"""By name, each (n, rounds, ...) float32; l counts layers from the end.

- ``delta_l`` (n, rounds, positions, outputs) and ``input_l`` (n, rounds, positions, inputs), whose
  products sum to the gradient; a constant input stands for the bias
- ``activation_l`` (n, rounds, inputs): the inputs averaged over positions
- ``logits`` and ``label`` (n, rounds, classes)
- ``loss`` (n, rounds, 2): the logarithm of the loss, and the logit gap
- ``summary`` (n, rounds, 5): log loss, whether the label is predicted, its probability, the
  entropy over its maximum, log gradient norm
"""

Step = tuple[int, int | None]
"""A round and a client's column, as ``Signals.model`` takes them."""

LOG_LOSS = 0
"""The logarithm of the loss's place in the summary."""

_CHUNK = 128
_CHUNK_DENSE = 512  # a dense layer is used at one position
_SMALLEST = 1e-30


def watch(signals: Signals, records: Examples, steps: Sequence[Step], layers: int) -> Features:
    """Return the features of n records under some models, of the last ``layers`` layers.

    Raises
    ------
    NotApplicableError
        If the network has fewer dense and convolutional layers than asked for.
    """
    x, y = torch.tensor(records.x), torch.tensor(records.y)
    rounds: list[Features] = []
    model: nn.Module | None = None
    for t, k in steps:
        model = signals.model(t, k, model)
        last = [m for m in model.modules() if _known(m)][: -layers - 1 : -1]
        if len(last) < layers:
            raise NotApplicableError(
                f"needs {layers} dense or convolutional layers; the model has {len(last)}"
            )
        rows = _CHUNK_DENSE if all(isinstance(m, nn.Linear) for m in last) else _CHUNK
        chunks = [
            _observe(model, last, x[i : i + rows], y[i : i + rows]) for i in range(0, len(y), rows)
        ]
        rounds.append({name: torch.cat([c[name] for c in chunks]) for name in chunks[0]})
    return {name: torch.stack([r[name] for r in rounds], 1) for name in rounds[0]}


def take(features: Features, rows: Tensor | slice) -> Features:
    """Return the features of some of the records."""
    return {name: value[rows] for name, value in features.items()}


def join(parts: Sequence[Features]) -> Features:
    """Return the features of all parts' records, one part after the other."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _known(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        plain = module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return module.groups == 1 and plain and module.weight.requires_grad
    return isinstance(module, nn.Linear) and module.weight.requires_grad


def _observe(model: nn.Module, layers: Sequence[nn.Module], x: Tensor, y: Tensor) -> Features:
    """Return one model's features of a chunk, without the axis of rounds."""
    seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in layers}

    def keep(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        torch.set_grad_enabled(True)  # nothing before the first of these layers is differentiated
        if not output.requires_grad:
            output.requires_grad_()
        seen[layer].append((inputs[0].detach(), output))
        return output.clone()  # an activation in place must not overwrite it

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        with torch.no_grad():
            logits = model(x)
    finally:
        for hook in hooks:
            hook.remove()
    # differentiating along the unit residual keeps what a tiny loss would lose in float32
    length, unit = unit_residual(logits, y)
    outputs = [output for layer in layers for _, output in seen[layer]]
    slopes = iter(torch.autograd.grad(logits, outputs, unit, allow_unused=True))
    z, features = logits.detach(), Features()
    squares = torch.zeros(len(y), dtype=torch.float64)
    for i, layer in enumerate(layers):
        deltas, inputs = [], []
        for h, output in seen[layer]:
            slope = next(slopes)
            slope = torch.zeros_like(output) if slope is None else slope
            deltas.append(_outputs(layer, slope))
            inputs.append(_inputs(layer, h))
        delta, h = torch.cat(deltas, 1), torch.cat(inputs, 1)
        squares += _square(delta, h)
        features[f"activation_{i}"] = h.mean(1)
        features[f"delta_{i}"] = (delta * length[:, None, None]).float()
        features[f"input_{i}"] = h
    loss, gap = loss_and_gap(z, y)
    p = z.double().softmax(1)
    entropy = -(p * p.clamp_min(_SMALLEST).log()).sum(1) / torch.tensor(p.shape[1]).log()
    log_loss = loss.clamp_min(_SMALLEST).log()
    norm = (length * squares.sqrt()).clamp_min(_SMALLEST).log()
    own = p.gather(1, y[:, None]).squeeze(1)
    features["logits"] = z
    features["label"] = one_hot(y, z.shape[1]).float()
    features["loss"] = torch.stack([log_loss, gap], 1).float()
    features["summary"] = torch.stack(
        [log_loss, (z.argmax(1) == y).double(), own, entropy, norm], 1
    ).float()
    return features


def _outputs(layer: nn.Module, values: Tensor) -> Tensor:
    """Return a value for each of the layer's outputs, (n, positions, outputs)."""
    if isinstance(layer, nn.Conv2d):
        return values.flatten(2).transpose(1, 2)
    return values.reshape(len(values), -1, values.shape[-1])


def _inputs(layer: nn.Module, h: Tensor) -> Tensor:
    """Return what each position's weights are multiplied with, (n, positions, inputs)."""
    if isinstance(layer, nn.Conv2d):
        rows = unfold(h, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
        rows = rows.transpose(1, 2)
    else:
        rows = h.reshape(len(h), -1, h.shape[-1])
    if layer.bias is None:
        return rows
    return torch.cat([rows, torch.ones_like(rows[..., :1])], -1)


def _square(delta: Tensor, h: Tensor) -> Tensor:
    """Return ``‖Σ_p δ_p h_pᵀ‖²``, (n,) float64, by the smaller of two matrices."""
    delta, h = delta.double(), h.double()
    if delta.shape[1] ** 2 > delta.shape[2] * h.shape[2]:
        return torch.einsum("npo,npi->noi", delta, h).square().sum((1, 2))
    both = torch.einsum("npo,nqo->npq", delta, delta) * torch.einsum("npi,nqi->npq", h, h)
    return both.sum((1, 2)).clamp_min(0)
