"""Data augmentation: every local epoch sees each record changed at random.

Images (channels, height, width) are shifted, mirrored, and have a square cut out (T. DeVries,
G. W. Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", arXiv
1708.04552, 2017); features of a table are masked; both can be noised. What is changed is drawn for
each record and epoch.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from flwr.app import Context
from torch import Tensor

from fedmia.errors import expect
from fedmia.regularized import Session, adding
from fedmia.site import Trainer
from fedmia.training import FlatModel


@dataclass(frozen=True)
class Augmentation:
    """Changes records before each epoch, in this order.

    Parameters
    ----------
    shift
        Most pixels by which an image is moved, in each direction; zeros come in.
    flip
        Whether half of the images are mirrored, left to right.
    cutout
        Side of the square of zeros, in pixels, whose centre is any pixel; part of it may lie
        outside.
    mask
        Probability with which a feature of a table is set to 0, the mean of a scaled column.
    noise
        Standard deviation of Gaussian noise on every feature or pixel; not clipped afterwards.

    Raises
    ------
    ConfigError
        If a value is out of its range, or nothing would be changed.
    """

    shift: int = 1
    flip: bool = False
    cutout: int = 0
    mask: float = 0.0
    noise: float = 0.05
    regularizes: ClassVar = True

    def __post_init__(self) -> None:
        expect(self.shift >= 0, "shift", self.shift, "at least 0")
        expect(self.cutout >= 0, "cutout", self.cutout, "at least 0")
        expect(0 <= self.mask < 1, "mask", self.mask, "in [0, 1)")
        expect(0 <= self.noise < math.inf, "noise", self.noise, "at least 0 and finite")
        some = any((self.shift, self.flip, self.cutout, self.mask, self.noise))
        expect(some, "noise", self.noise, "more than 0, or another change")

    def check_input(self, shape: tuple[int, ...]) -> None:
        """Raise ``ConfigError`` for a change that records of this shape cannot undergo."""
        image, shown = len(shape) == 3, "×".join(map(str, shape))
        side = min(shape[1:]) if image else 0
        only = f"for images only; records are {shown}"
        expect(image or not self.shift, "shift", self.shift, f"0: it is {only}")
        expect(image or not self.flip, "flip", self.flip, f"false: it is {only}")
        expect(image or not self.cutout, "cutout", self.cutout, f"0: it is {only}")
        expect(self.shift < max(1, side), "shift", self.shift, f"less than the side, {side}")
        allowed = f"0: it is for tables only; records are {shown}"
        expect(len(shape) == 1 or not self.mask, "mask", self.mask, allowed)

    def trains(self, trainer: Trainer, context: Context) -> Trainer:
        """Return the recipe with changed records."""
        return adding(trainer, _Changing(self))


@dataclass(frozen=True)
class _Changing:
    how: Augmentation

    def begin(self, model: FlatModel, x: Tensor, y: Tensor, rng: np.random.Generator) -> Session:
        return _Session(self.how, rng)


@dataclass
class _Session(Session):
    how: Augmentation
    rng: np.random.Generator

    def epoch(self, number: int, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        how, rng, n = self.how, self.rng, len(x)
        if how.shift:
            moves = rng.integers(-how.shift, how.shift + 1, (2, n))
            x = shifted(x, *torch.from_numpy(moves).to(x.device))
        if how.flip:
            mirrored = torch.from_numpy(rng.random(n) < 0.5).to(x.device)
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        if how.cutout:
            centres = rng.integers([[x.shape[2]], [x.shape[3]]], size=(2, n))
            x = without_square(x, how.cutout, *torch.from_numpy(centres).to(x.device))
        if how.mask:
            masked = torch.from_numpy(rng.random(tuple(x.shape)) < how.mask)
            x = x.masked_fill(masked.to(x.device), 0.0)
        if how.noise:
            drawn = rng.standard_normal(tuple(x.shape), dtype=np.float32)
            x = x.add(torch.from_numpy(drawn).to(x), alpha=how.noise)
        return x, targets


def shifted(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Return images (n, channels, height, width), each moved by its numbers of pixels, (n,)."""
    rows, within_rows = _moved(x.shape[2], down)
    columns, within_columns = _moved(x.shape[3], right)
    image = torch.arange(len(x), device=x.device)[:, None, None]
    # The slice between the indices puts the channels last.
    found = x[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return found * (within_rows[:, None, :, None] & within_columns[:, None, None, :])


def without_square(x: Tensor, side: int, row: Tensor, column: Tensor) -> Tensor:
    """Return images (n, channels, height, width) with zeros around pixels (row, column), (n,)."""
    rows, columns = _around(x.shape[2], side, row), _around(x.shape[3], side, column)
    return x.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0.0)


def _around(size: int, side: int, centre: Tensor) -> Tensor:
    """Return which pixels of a line are in the square, (n, size)."""
    at = torch.arange(size, device=centre.device) - (centre[:, None] - side // 2)
    return (at >= 0) & (at < side)


def _moved(size: int, by: Tensor) -> tuple[Tensor, Tensor]:
    """Return where each pixel of a line comes from, and whether that is inside; both (n, size)."""
    source = torch.arange(size, device=by.device) - by[:, None]
    return source.clamp(0, size - 1), (source >= 0) & (source < size)
