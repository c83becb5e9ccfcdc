"""Sub-models: some of a network's hidden units, with the weights into them and out of them.

The layers of a plain stack are found by their arrays alone, so that whoever sends a model and
whoever receives it have the same units in mind. A hidden unit is an output of a linear layer or a
channel of a convolution, the last layer's excepted.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fedmia.errors import expect
from fedmia.records import Params

Mask = dict[str, NDArray[np.bool_]]
"""Which coordinates of each floating array belong to a sub-model, of the array's shape."""

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_OF_ZERO_ZERO = (
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Identity, nn.Dropout),
    *(nn.Flatten, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
)
"""Where a unit without weights is 0, so is what they make of it."""


def check_stack(model: nn.Module) -> None:
    """Refuse a model whose units are not those of a plain stack of layers.

    Raises
    ------
    ConfigError
        In one line, with what stands in the way.
    """
    kind = type(model).__name__
    allowed = "nn.Sequential of linear and convolutional layers, in whose order units are found"
    expect(isinstance(model, nn.Sequential), "model", kind, allowed)
    layers = list(model.children())
    for layer in layers:
        name = type(layer).__name__
        plain = isinstance(layer, (*_WEIGHTED, *_OF_ZERO_ZERO))
        allowed = f"no {name}, which may make something of a unit that is not there"
        expect(plain and getattr(layer, "groups", 1) == 1, "model", kind, allowed)
    weighted = sum(isinstance(layer, _WEIGHTED) for layer in layers)
    expect(weighted > 1, "model", kind, "a model with hidden units")


def drawn_mask(params: Params, keep: float, rng: np.random.Generator) -> Mask:
    """Return a random sub-model that has the same number of units in each layer every time.

    Parameters
    ----------
    params
        Arrays of a model that :func:`check_stack` accepts, or of an update of it, in its order.
    keep
        Share of each hidden layer's units, rounded, at least one.
    rng
        Draws them.
    """
    floats = {k: v for k, v in params.items() if np.issubdtype(v.dtype, np.floating)}
    weights = [name for name, value in floats.items() if value.ndim > 1]
    mask = {name: np.ones(value.shape, np.bool_) for name, value in floats.items()}
    for name, reader in pairwise(weights):
        units = len(floats[name])
        gone = rng.permutation(units)[max(1, round(keep * units)) :]
        mask[name][gone] = False
        bias = f"{name.removesuffix('weight')}bias"
        if bias in mask:
            mask[bias][gone] = False
        # A channel's pixels follow one another where it is flattened.
        inputs = mask[reader].reshape(len(floats[reader]), units, -1)
        inputs[:, gone] = False
    return mask


def only(params: Params, mask: Mapping[str, NDArray[np.bool_]]) -> dict[str, NDArray[np.generic]]:
    """Return the arrays with 0 for every coordinate that is not in the sub-model.

    Trained as they are, they give what the smaller network gives: a unit whose weights are all 0
    has output and gradients 0.
    """
    return {k: np.where(mask[k], v, v.dtype.type(0)) if k in mask else v for k, v in params.items()}
