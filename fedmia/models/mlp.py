"""The multilayer perceptron: any input, flattened, through fully connected ReLU layers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod

from torch import nn

from fedmia.errors import expect


@dataclass(frozen=True)
class MLP:
    """Build fully connected networks with ReLU between the layers.

    Parameters
    ----------
    hidden
        Width of each hidden layer, from the input on.

    Raises
    ------
    ConfigError
        If a width is not a positive integer.
    """

    hidden: Sequence[int] = field(default_factory=lambda: [256, 256])

    def __post_init__(self) -> None:
        expect(
            all(isinstance(width, int) and width > 0 for width in self.hidden),
            "hidden",
            list(self.hidden),
            "a list of positive integers",
        )

    def __call__(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """Return a network from (n, *input_shape) to logits (n, num_classes)."""
        widths = [prod(input_shape), *self.hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))
