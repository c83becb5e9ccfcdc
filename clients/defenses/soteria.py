"""Soteria: the update says nothing of the features that give a record away.

J. Sun, A. Li, B. Wang, H. Yang, H. Li, Y. Chen, "Soteria: Provable Defense Against Privacy Leakage
in Federated Learning from Representation Perspective", CVPR 2021, arXiv 2012.06043. The paper
prunes the gradient of one step; here the update of local training is pruned in its place.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from flwr.app import Context
from torch import Tensor, nn

from clients.defenses.compression import expect_share
from fedmia.errors import expect
from fedmia.signals.lenses import Lens, Transmitted
from fedmia.site import Trainer
from fedmia.training import FlatModel

_FEATURES, _RECORDS = 32, 64
"""How many features are differentiated at once, for how many records."""


@dataclass(frozen=True)
class Soteria:
    """Leaves out of the update the weights of the features that tell most of the records.

    The representation r is what goes into the last linear layer. After local training, feature i
    has the score ``|r_i| / ‖∂r_i/∂x‖₂``, the mean over the client's records of what the trained
    model makes of them, 0 where r_i is; the weights of the features with the largest scores go
    back to what they were. Nothing else is touched, and no ε is claimed.

    Parameters
    ----------
    share
        Of the features, rounded up, that are left out.
    """

    share: float = 0.4
    after_training: ClassVar = True
    lens: ClassVar[Lens] = Transmitted()

    def __post_init__(self) -> None:
        expect_share(self.share)

    def check_model(self, module: nn.Module) -> None:
        """Raise ``ConfigError`` if there is no linear layer."""
        linear = any(isinstance(layer, nn.Linear) for layer in module.modules())
        expect(linear, "model", type(module).__name__, "one with a linear layer")

    def trains(self, trainer: Trainer, context: Context) -> Trainer:
        """Return the recipe with the pruning after it."""
        return _Pruned(trainer, self.share)


@dataclass(frozen=True)
class _Pruned:
    """Trains, and takes back what was learnt of some features."""

    base: Trainer
    share: float

    def fit(self, model: FlatModel, x: Tensor, y: Tensor, rng: np.random.Generator) -> float:
        """Train in place and return the mean loss."""
        weight = last_linear(model.module).weight
        before = weight.detach().clone()
        loss = self.base.fit(model, x, y, rng)
        scores = sensitivity(model.module.eval(), x)
        pruned = scores.topk(math.ceil(self.share * len(scores))).indices
        with torch.no_grad():
            weight[:, pruned] = before[:, pruned]
        return loss


def last_linear(module: nn.Module) -> nn.Linear:
    """Return the linear layer that a module defines last."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]


def sensitivity(module: nn.Module, x: Tensor) -> Tensor:
    """Return the mean of ``|r_i| / ‖∂r_i/∂x‖₂`` over records, (features,).

    Parameters
    ----------
    module
        In evaluation mode, so that no record has a part in what becomes of another.
    x
        Records, (n, *input_shape).
    """
    parts = [_ratios(module, some).sum(0) for some in torch.split(x, _RECORDS)]
    return torch.stack(parts).sum(0) / len(x)


def _ratios(module: nn.Module, x: Tensor) -> Tensor:
    """Return the ratio for each record and feature, (n, features)."""
    x = x.detach().clone().requires_grad_()
    with _inputs_of(last_linear(module)) as inputs:
        module(x)
    (r,) = inputs
    r = r.reshape(len(x), -1)
    norms = torch.empty_like(r)
    for some in torch.split(torch.arange(r.shape[1], device=x.device), _FEATURES):
        # One vector a feature: since records do not mix, it serves all of them at once.
        one = torch.zeros(len(some), *r.shape, device=x.device)
        one[torch.arange(len(some)), :, some] = 1
        (jacobian,) = torch.autograd.grad(r, x, one, retain_graph=True, is_grads_batched=True)
        norms[:, some] = jacobian.flatten(2).norm(dim=2).t()
    size = r.detach().abs()
    return torch.where(size > 0, size / norms.clamp_min(torch.finfo(r.dtype).tiny), 0.0)


@contextmanager
def _inputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what goes into a layer."""
    inputs: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    try:
        yield inputs
    finally:
        hook.remove()
