"""A small convolutional network for images of 8×8 pixels and up."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from torch import nn

from fedmia.errors import ConfigError, expect


@dataclass(frozen=True)
class CNN:
    """Build stacks of 3×3 convolution, ReLU and 2×2 max-pooling, and one hidden dense layer.

    There is no normalisation: every layer treats every sample by itself.

    Parameters
    ----------
    channels
        Output channels of each convolution, from the image on.
    hidden
        Width of the dense layer before the logits.

    Raises
    ------
    ConfigError
        If a width is not a positive integer, or, when called, if the input is not an image with
        a pixel left after every halving.
    """

    channels: Sequence[int] = field(default_factory=lambda: [32, 64])
    hidden: int = 128

    def __post_init__(self) -> None:
        expect(
            len(self.channels) > 0 and all(isinstance(c, int) and c > 0 for c in self.channels),
            "channels",
            list(self.channels),
            "a list of one or more positive integers",
        )
        expect(self.hidden > 0, "hidden", self.hidden, "a positive integer")

    def __call__(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """Return a network from (n, channels, height, width) to logits (n, num_classes)."""
        smallest = 2 ** len(self.channels)
        if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
            raise ConfigError(
                f"model=cnn: expected images (channels, height, width) of at least "
                f"{smallest}x{smallest} pixels, got input shape {input_shape}"
            )
        depth, height, width = input_shape
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise([depth, *self.channels]):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        features = self.channels[-1] * (height // smallest) * (width // smallest)
        layers += [nn.Flatten(), nn.Linear(features, self.hidden), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(self.hidden, num_classes))
