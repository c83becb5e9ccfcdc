"""ResNet-18 for small images, with GroupNorm in place of BatchNorm.

K. He, X. Zhang, S. Ren, J. Sun, *Deep Residual Learning for Image Recognition*, CVPR 2016,
arXiv 1512.03385; the stem for small images is a single 3×3 convolution without pooling (§4.2).
GroupNorm (Y. Wu, K. He, ECCV 2018, arXiv 1803.08494) treats every sample by itself, which
per-sample gradients and record-level differential privacy need.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedmia.errors import ConfigError, expect


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, projected where the shapes differ (option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(groups, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.GroupNorm(groups, outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``relu(F(x) + x)``."""
        residual = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(residual)) + self.shortcut(x))


@dataclass(frozen=True)
class ResNet18:
    """Build ResNet-18 with four stages of two blocks each.

    Parameters
    ----------
    width
        Channels of the first stage; each later stage doubles them.
    groups
        Groups of every GroupNorm; divides ``width``.

    Raises
    ------
    ConfigError
        If ``groups`` does not divide ``width``, or, when called, if the input is not an image.
    """

    width: int = 64
    groups: int = 32

    def __post_init__(self) -> None:
        expect(self.width > 0, "width", self.width, "a positive integer")
        expect(
            self.groups > 0 and self.width % self.groups == 0,
            "groups",
            self.groups,
            f"a divisor of width={self.width}",
        )

    def __call__(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """Return a network from (n, channels, height, width) to logits (n, num_classes)."""
        if len(input_shape) != 3 or min(input_shape[1:]) < 8:
            raise ConfigError(
                "model=resnet18: expected images (channels, height, width) of at least "
                f"8x8 pixels, got input shape {input_shape}"
            )
        layers: list[nn.Module] = [
            nn.Conv2d(input_shape[0], self.width, 3, padding=1, bias=False),
            nn.GroupNorm(self.groups, self.width),
            nn.ReLU(),
        ]
        inputs = self.width
        for stage in range(4):
            outputs = self.width * 2**stage
            layers += [
                BasicBlock(inputs, outputs, stride=1 if stage == 0 else 2, groups=self.groups),
                BasicBlock(outputs, outputs, stride=1, groups=self.groups),
            ]
            inputs = outputs
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes)]
        return nn.Sequential(*layers)
