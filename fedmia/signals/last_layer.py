"""Gradient norms of the last layer in closed form, from one forward pass."""

from typing import Any

import torch
from torch import Tensor, nn

from fedmia.signals.gradients import residual


@torch.no_grad()
def last_layer_norm(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return ``‖∂ℓ/∂(W, b)‖ = ‖p − e_y‖ √(‖h‖² + 1)`` of the logits ``z = W h + b``.

    Without a trainable bias the ``+ 1`` is missing, without a trainable weight the ``‖h‖²``.

    Parameters
    ----------
    model
        A network whose logits come from an ``nn.Linear``.
    x, y
        Records and labels, (n, *input_shape) and (n,).

    Returns
    -------
    Tensor
        Shape (n,), float64.

    Raises
    ------
    NotImplementedError
        If the logits are not the output of a trainable ``nn.Linear`` of its own.
    """
    calls: list[tuple[nn.Linear, Tensor, Tensor, int]] = []

    def record(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        assert isinstance(layer, nn.Linear)
        calls.append((layer, inputs[0], output, output._version))

    hooks = [m.register_forward_hook(record) for m in model.modules() if isinstance(m, nn.Linear)]
    try:
        logits = model(x)
    finally:
        for hook in hooks:
            hook.remove()
    last = [
        (layer, h)
        for layer, h, output, version in calls
        if output.data_ptr() == logits.data_ptr()
        and (output.shape, output._version) == (logits.shape, version)
    ]
    if not last or not _alone(model, last[0][0], [layer for layer, *_ in calls]):
        raise NotImplementedError(
            f"last_layer_norm: the logits of {type(model).__name__} are not the output of a "
            "trainable Linear layer of their own"
        )
    layer, h = last[0]
    energy = torch.zeros(len(y), dtype=torch.float64)
    if layer.weight.requires_grad:
        energy += h.double().square().sum(1)
    if layer.bias is not None and layer.bias.requires_grad:
        energy += 1
    length: Tensor = torch.linalg.vector_norm(residual(logits, y), dim=1)
    return length * energy.sqrt()


def _alone(model: nn.Module, layer: nn.Linear, called: list[nn.Linear]) -> bool:
    """Return whether a layer learns, and nothing else of the network uses its parameters."""
    own = {id(p) for p in layer.parameters()}
    users = sum(id(p) in own for _, p in model.named_parameters(remove_duplicate=False))
    learns = any(p.requires_grad for p in layer.parameters())
    return learns and users == len(own) and called.count(layer) == 1
