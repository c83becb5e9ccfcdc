"""Local training and evaluation in plain torch, on a model kept as one flat vector.

A step of SGD on a small network costs more in Python than in arithmetic. With all trainable
parameters (and their gradients) laid out as views of one vector, loading a global model is one
copy and each optimiser step is one operation per term, whatever the number of layers.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedmia.backprop import DenseNetwork, Factors, Residual
from fedmia.errors import expect
from fedmia.records import Examples, Params


class FlatModel:
    """A copy of a module with its trainable parameters as views of one vector, ``flat``.

    Gradients come as one vector, ``grad``, in the same order.

    Parameters
    ----------
    module
        Its trainable parameters must share one floating dtype. Moved to ``device``.
    device
        Where to train; the exchange with numpy always happens in host memory.
    """

    def __init__(self, module: nn.Module, device: str = "cpu") -> None:
        self.module = module = copy.deepcopy(module).to(device)
        trainable = [p for p in module.parameters() if p.requires_grad]
        if len({p.dtype for p in trainable}) != 1:
            raise ValueError("Expected trainable parameters of one dtype.")
        self.flat = torch.cat([p.detach().reshape(-1) for p in trainable])
        self.grad = torch.zeros_like(self.flat)
        self._trainable = trainable
        self._host = self.flat if device == "cpu" else self.flat.cpu()
        spans: dict[int, tuple[int, int]] = {}
        start = 0
        for p in trainable:
            end = start + p.numel()
            p.data = self.flat[start:end].view_as(p)
            spans[id(p)] = (start, end)
            start = end
        self._views: dict[str, NDArray[Any]] = {}
        for name, tensor in module.state_dict(keep_vars=True).items():
            if id(tensor) in spans:
                a, b = spans[id(tensor)]
                self._views[name] = self._host[a:b].view(tensor.shape).numpy()
        self.names = tuple(module.state_dict())
        self._dense = DenseNetwork.of(module, self.grad)
        self._factors: Factors | None = None
        self._num_classes: int | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is trained."""
        return self.flat.device

    def differentiate(self, loss: Tensor) -> None:
        """Set ``grad`` to the gradient of a loss; 0 for parameters that it does not depend on."""
        gradients = torch.autograd.grad(
            loss, self._trainable, allow_unused=True, materialize_grads=True
        )
        torch.cat([g.reshape(-1) for g in gradients], out=self.grad)

    def backward(self, x: Tensor, y: Tensor) -> Tensor:
        """Set ``grad`` to that of the mean cross-entropy of a batch, and return this loss.

        Parameters
        ----------
        x, y
            Features (n, *input_shape) and labels (n,) on the model's device.
        """
        if self._dense is not None:
            return self._dense.backward(x, y)
        loss = cross_entropy(self.module(x), y)
        self.differentiate(loss)
        return loss

    def backward_through(self, x: Tensor, residual: Residual) -> None:
        """Set ``grad`` to that of the mean loss of a batch, given its gradients in the logits.

        Parameters
        ----------
        x
            Features (n, *input_shape) on the model's device.
        residual
            Returns each record's gradient in its logits, shape (n, classes), given the logits.
            Called once, without gradients recorded; what it returns is taken over.
        """
        if self._dense is not None:
            self._dense.backward_through(x, residual, self._factors)
            return
        logits = self.module(x)
        with torch.no_grad():
            delta = residual(logits.detach()).div_(len(x))
        gradients = torch.autograd.grad(
            logits, self._trainable, delta, allow_unused=True, materialize_grads=True
        )
        torch.cat([g.reshape(-1) for g in gradients], out=self.grad)

    @contextmanager
    def hidden_scaled(self, factors: Factors) -> Iterator[None]:
        """Have :meth:`backward_through` multiply the inputs of hidden layers, and then no longer.

        Hidden are all linear and convolutional layers but the first of the module. Nothing else
        than training is changed meanwhile, and no copy of the module is.

        Parameters
        ----------
        factors
            Called with the inputs of a hidden layer, for factors of the same shape.
        """
        hidden = [] if self._dense else hidden_layers(self.module)

        def scaled(layer: nn.Module, inputs: tuple[Tensor]) -> Tensor | None:
            own = layer.training and layer in hidden
            return inputs[0] * factors(inputs[0]) if own else None

        self._factors = factors
        hooks = [layer.register_forward_pre_hook(scaled) for layer in hidden]
        try:
            yield
        finally:
            self._factors = None
            for hook in hooks:
                hook.remove()

    def num_classes(self, x: Tensor) -> int:
        """Return the number of logits, found in evaluation mode on a record of x (n, ...), once."""
        if self._num_classes is None:
            training = self.module.training
            with torch.no_grad():
                self._num_classes = self.module.eval()(x[:1]).shape[1]
            self.module.train(training)
        return self._num_classes

    def load(self, params: Params) -> None:
        """Set every parameter and buffer from named arrays.

        Raises
        ------
        ValueError
            If a name is missing or unknown, or a shape differs.
        """
        if set(params) != set(self.names):
            odd = sorted(set(params) ^ set(self.names))
            raise ValueError(
                f"Expected the parameters of the model, got {odd[0]!r} too many or few"
            )
        others = self._others()
        for name, value in params.items():
            shape = self._views[name].shape if name in self._views else tuple(others[name].shape)
            if value.shape != shape:
                raise ValueError(f"Expected {name} of shape {shape}, got {value.shape}")
            if name in self._views:
                np.copyto(self._views[name], value)
            else:
                others[name].copy_(torch.tensor(value))
        if self._host is not self.flat:
            self.flat.copy_(self._host)

    def params(self) -> dict[str, NDArray[Any]]:
        """Return a copy of every parameter and buffer as named arrays."""
        return {name: value.copy() for name, value in self.view().items()}

    def view(self) -> dict[str, NDArray[Any]]:
        """Return every parameter and buffer as arrays that change when the model does."""
        if self._host is not self.flat:
            self._host.copy_(self.flat)
        others = self._others()
        return {
            name: self._views[name] if name in self._views else others[name].cpu().numpy()
            for name in self.names
        }

    def _others(self) -> dict[str, Tensor]:
        """Return buffers and frozen parameters; training may have put new ones in their place."""
        return self.module.state_dict() if len(self._views) < len(self.names) else {}


@dataclass(frozen=True)
class LocalSGD:
    """Mini-batch SGD with momentum, as each client runs it between two aggregations.

    The momentum buffer starts at zero in every round (McMahan et al. 2017, Algorithm 1, with
    the momentum of ``torch.optim.SGD``).
    """

    local_epochs: int = 5
    batch_size: int = 5
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        expect(self.local_epochs >= 1, "local_epochs", self.local_epochs, "at least 1")
        expect(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        expect(0 < self.lr < np.inf, "lr", self.lr, "more than 0 and finite")
        expect(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        decay = self.weight_decay
        expect(0 <= decay < np.inf, "weight_decay", decay, "at least 0 and finite")

    def fit(self, model: FlatModel, x: Tensor, y: Tensor, rng: np.random.Generator) -> float:
        """Train in place and return the mean loss of the last epoch, before each step.

        Parameters
        ----------
        model
            Trained from its present parameters.
        x, y
            Features (n, *input_shape) and labels (n,) on the model's device.
        rng
            Draws the order of the records, anew for each epoch.
        """
        model.module.train()
        step = self.stepper(model)
        n = len(y)
        total = 0.0
        for epoch in range(1, self.local_epochs + 1):
            order = torch.from_numpy(rng.permutation(n)).to(x.device)
            shuffled_x, shuffled_y = x[order], y[order]
            for start in range(0, n, self.batch_size):
                batch_y = shuffled_y[start : start + self.batch_size]
                loss = model.backward(shuffled_x[start : start + self.batch_size], batch_y)
                step()
                if epoch == self.local_epochs:
                    total += loss.item() * len(batch_y)
        return total / n

    def stepper(self, model: FlatModel) -> Callable[[], None]:
        """Return what takes a step along the model's ``grad``, from a momentum of zero."""
        flat, grad = model.flat, model.grad
        velocity = torch.zeros_like(flat) if self.momentum else grad

        def step() -> None:
            if self.weight_decay:
                grad.add_(flat, alpha=self.weight_decay)
            if self.momentum:
                torch.add(grad, velocity, alpha=self.momentum, out=velocity)
            flat.sub_(velocity, alpha=self.lr)

        return step


def hidden_layers(module: nn.Module) -> Sequence[nn.Module]:
    """Return all linear and convolutional layers of a module but the first."""
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    return [layer for layer in module.modules() if isinstance(layer, kinds)][1:]


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def accuracy(module: nn.Module, examples: Examples, batch_size: int = 2048) -> float:
    """Return the fraction of records classified correctly, in evaluation mode."""
    module.eval()
    device = next(module.parameters()).device
    correct = 0
    for start in range(0, len(examples), batch_size):
        batch = examples[slice(start, start + batch_size)]
        predicted = module(torch.from_numpy(batch.x).to(device)).argmax(dim=1).cpu().numpy()
        correct += int((predicted == batch.y).sum())
    return correct / len(examples)


def first_nonfinite(params: Mapping[str, NDArray[Any]]) -> str | None:
    """Return the name of the first array that holds a NaN or an infinity, if any does."""
    for name, value in params.items():
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
            return name
    return None
