"""Multinomial logistic regression: one linear layer on the flattened input."""

from dataclasses import dataclass
from math import prod

from torch import nn


@dataclass(frozen=True)
class Logistic:
    """Build linear classifiers."""

    def __call__(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """Return a network from (n, *input_shape) to logits (n, num_classes)."""
        return nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shape), num_classes))
