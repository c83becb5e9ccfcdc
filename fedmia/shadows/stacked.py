"""Many models of one architecture trained in step, each on its own records.

A step of SGD on a small network is bound by overhead and by the traffic of its weights. Here the
weights of m models lie in stacked tensors and each operation serves all of them; the gradient of
a dense layer is never written down: ``v ← μv + Δᵀ A`` is one batched matrix product.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy

from fedmia.training import LocalSGD

Stacked = dict[str, Tensor]
"""Every entry of a ``state_dict``, with the models in front: (m, *shape)."""


class StackedModel:
    """The networks of m models; batches pass through as (m·b, ...), model by model.

    Everything but the layers with parameters is taken to treat rows by themselves.

    Parameters
    ----------
    module
        The architecture, without buffers and shared parameters.
    weights
        Trained in place.
    sgd
        How to train.
    """

    def __init__(self, module: nn.Module, weights: Mapping[str, Tensor], sgd: LocalSGD) -> None:
        self._sgd = sgd
        self._weights = {name: _Weights(value, sgd.momentum) for name, value in weights.items()}
        self._trained = [
            self._weights[name] for name, p in module.named_parameters() if p.requires_grad
        ]
        for weights_ in self._trained:
            weights_.trained = True
        self.net = self._stack(copy.deepcopy(module), "")

    def fit(self, x: Tensor, y: Tensor, orders: Sequence[Tensor]) -> None:
        """Train as :meth:`LocalSGD.fit` trains each model.

        Parameters
        ----------
        x, y
            The models' records, shapes (m, n, *input_shape) and (m, n).
        orders
            For each epoch the order of each model's records, (m, n).
        """
        self.net.train()
        rows = torch.arange(len(y))[:, None]
        for order in orders:
            for start in range(0, y.shape[1], self._sgd.batch_size):
                batch = order[:, start : start + self._sgd.batch_size]
                self.step(x[rows, batch], y[rows, batch])

    def step(self, x: Tensor, y: Tensor) -> None:
        """Take one step on batches of shapes (m, b, *input_shape) and (m, b)."""
        logits = self.net(x.flatten(0, 1))
        loss = cross_entropy(logits, y.flatten(), reduction="sum") / y.shape[1]
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for weights in self._trained:
                weights.step(self._sgd)

    def _stack(self, module: nn.Module, prefix: str) -> nn.Module:
        if type(module) is nn.Linear:
            bias = self._weights.get(f"{prefix}bias")
            return _Linear(self._weights[f"{prefix}weight"], bias)
        if next(module.parameters(recurse=False), None) is not None:
            own = {name: self._weights[prefix + name] for name, _ in module.named_parameters()}
            return _Layer(module, {name: weights.leaf() for name, weights in own.items()})
        for name, child in module.named_children():
            module.add_module(name, self._stack(child, f"{prefix}{name}."))
        return module


class _Weights:
    """One parameter of m models and its momentum."""

    def __init__(self, value: Tensor, momentum: float) -> None:
        self.value = value
        self.trained = False
        self._momentum = momentum
        self._velocity = torch.zeros_like(value)
        self._decayed = False

    def leaf(self) -> Tensor:
        """Return the values, with a gradient of autograd's if they are trained."""
        return self.value.requires_grad_(self.trained)

    def add(self, gradient: Tensor) -> None:
        """Count in a part of the gradient, (m, *shape)."""
        self._velocity.mul_(self._decay()).add_(gradient)

    def add_product(self, a: Tensor, b: Tensor) -> None:
        """Count in ``a @ b`` of shapes (m, o, p) and (m, p, i)."""
        self._velocity.baddbmm_(a, b, beta=self._decay())

    def step(self, sgd: LocalSGD) -> None:
        """Move the values; a parameter without a gradient has gradient 0."""
        if self.value.grad is not None:
            self.add(self.value.grad)
            self.value.grad = None
        elif not self._decayed:
            self._velocity.mul_(self._momentum)
        self._decayed = False
        if sgd.weight_decay:
            self._velocity.add_(self.value, alpha=sgd.weight_decay)
        self.value.sub_(self._velocity, alpha=sgd.lr)

    def _decay(self) -> float:
        factor = 1.0 if self._decayed else self._momentum
        self._decayed = True
        return factor


class _Linear(nn.Module):
    """m dense layers; their gradients go straight into the momentum."""

    def __init__(self, weight: _Weights, bias: _Weights | None) -> None:
        super().__init__()
        self._weight, self._bias = weight, bias
        self._anchor = torch.zeros((), requires_grad=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``A Wᵀ + b`` of each model, for x of shape (m·b, ..., inputs)."""
        weight = self._weight.value
        out: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
            x.reshape(len(weight), -1, x.shape[-1]), self._anchor, self._weight, self._bias
        )
        return out.reshape(*x.shape[:-1], -1)


class _Product(torch.autograd.Function):
    """``Z = A Wᵀ + b`` for A of shape (m, p, inputs); ``anchor`` calls for a backward pass."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, anchor: Tensor, weight: _Weights, bias: Any) -> Tensor:
        ctx.save_for_backward(a)
        ctx.weight, ctx.bias = weight, bias
        transposed = weight.value.mT
        if bias is None:
            return torch.bmm(a, transposed)
        return torch.baddbmm(bias.value[:, None], a, transposed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        (a,), (delta,) = ctx.saved_tensors, gradients
        if ctx.weight.trained:
            ctx.weight.add_product(delta.mT, a)
        if ctx.bias is not None and ctx.bias.trained:
            ctx.bias.add(delta.sum(1))
        below = torch.bmm(delta, ctx.weight.value) if ctx.needs_input_grad[0] else None
        return below, None, None, None


class _Layer(nn.Module):
    """Any other layer with parameters, m times by ``vmap``."""

    def __init__(self, layer: nn.Module, weights: Stacked) -> None:
        super().__init__()
        self._each = vmap(
            lambda weights, x: functional_call(layer, weights, (x,)), randomness="different"
        )
        self._layer, self._stacked = layer, weights

    def forward(self, x: Tensor) -> Tensor:
        """Return what the models' layers make of x of shape (m·b, ...)."""
        m = len(next(iter(self._stacked.values())))
        out: Tensor = self._each(self._stacked, x.reshape(m, -1, *x.shape[1:]))
        return out.flatten(0, 1)


def orders(n: int, epochs: int, rngs: Sequence[np.random.Generator]) -> list[Tensor]:
    """Return what each model's generator makes of n records: (m, n) an epoch."""
    drawn: list[list[NDArray[np.int64]]] = [
        [rng.permutation(n) for rng in rngs] for _ in range(epochs)
    ]
    return [torch.from_numpy(np.stack(epoch)) for epoch in drawn]
