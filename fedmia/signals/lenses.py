"""How an adversary that knows a defence compares a client's update with a record's gradient.

A defence that drops, rounds or rotates coordinates changes what the cosine between update and
gradient is made of. Who knows the defence looks at both through a lens, which leaves the part that
they still have in common. A lens is public information: it holds the defence's settings alone.

All arithmetic is by parameter array, flattened in row-major order to d coordinates.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from scipy.fft import dct, idct
from torch import Tensor

from fedmia.errors import expect
from fedmia.signals.dct_energy import kept_energy

_OUTER_BYTES = 32 * 2**20
"""Memory for gradients of a dense layer that are written down at a time."""

_ROUNDING = 1e-11
"""Of squares of float32."""

Compared = tuple[Tensor, Tensor]
"""Squared norms of n gradients as they are compared with K updates, and inner products: (n, K)."""


def lowest(size: int, share: float) -> int:
    """Return how many of an array's coefficients make up its lowest ``share``, at least one."""
    return max(1, ceil(share * size))


class Lens(ABC):
    """A way to look at an update and at gradients; subclasses are frozen dataclasses.

    :meth:`update` and :meth:`gradient` are its definition. Every lens keeps the cosine what it is
    where gradients are multiplied by a positive number.
    """

    @abstractmethod
    def update(self, name: str, u: Tensor) -> Tensor:
        """Return what the adversary looks at of an update's array ``name``, (d,)."""

    @abstractmethod
    def gradient(self, name: str, g: Tensor, u: Tensor) -> Tensor:
        """Return what it compares of n records' gradients (n, d) with the update ``u`` (d,)."""

    @property
    def by_coordinate(self) -> bool:
        """Whether gradients, or their signs, are kept or dropped coordinate by coordinate."""
        return True

    @property
    def takes_signs(self) -> bool:
        """Whether it looks at signs."""
        return False

    @property
    def follows_update(self) -> bool:
        """Whether what it shows of a gradient depends on the update that it is compared with."""
        return False

    def compare(self, name: str, g: Tensor, u: Tensor) -> Compared:
        """Compare n gradients (n, d) with K updates (K, d)."""
        if self.by_coordinate:
            masks, moves = self._masks(name, g, u)
            g = g.sign() if self.takes_signs else g
            return g.square() @ masks.T, g @ moves.T
        pairs = [(self.gradient(name, g, one), self.update(name, one)) for one in u]
        squares = torch.stack([seen.square().sum(1) for seen, _ in pairs], 1)
        return squares, torch.stack([seen @ one for seen, one in pairs], 1)

    def compare_outer(self, name: str, delta: Tensor, a: Tensor, u: Tensor) -> Compared:
        """Compare the gradients ``δ aᵀ`` of a dense layer with K updates (K, outputs, inputs).

        ``delta`` is (n, outputs), ``a`` (n, inputs). With masks M of coordinates the squared norms
        are ``Σ m_oi (δ_o a_i)² = (δ²)ᵀ M (a²)``; the signs of a gradient are ``sign(δ) sign(a)ᵀ``.
        Else the gradients are written down for a few records at a time.
        """
        flat, size = u.flatten(1), delta.shape[1] * a.shape[1]
        if self.by_coordinate:
            masks, moves = self._masks(name, delta, flat)
            delta, a = (delta.sign(), a.sign()) if self.takes_signs else (delta, a)
            kept = _bilinear(delta.square(), a.square(), masks.view(u.shape))
            return kept, _bilinear(delta, a, moves.view(u.shape))
        rows = max(1, _OUTER_BYTES // (4 * size))
        parts = [
            self.compare(name, (d[:, :, None] * b[:, None]).flatten(1), flat)
            for d, b in zip(torch.split(delta, rows), torch.split(a, rows), strict=True)
        ]
        squares, dots = zip(*parts, strict=True)
        return torch.cat(squares), torch.cat(dots)

    def _masks(self, name: str, like: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return which coordinates are kept for each of K updates, and the updates: (K, d)."""
        whole = like.new_ones(1, u.shape[1])
        masks = torch.cat([self.gradient(name, whole, one) for one in u])
        return masks, torch.stack([self.update(name, one) for one in u]) * masks


@dataclass(frozen=True)
class Transmitted(Lens):
    """Only the coordinates that the client's update has, as it is not zero there."""

    @property
    def follows_update(self) -> bool:
        """It does."""
        return True

    def update(self, name: str, u: Tensor) -> Tensor:
        """Return the update as it is."""
        return u

    def gradient(self, name: str, g: Tensor, u: Tensor) -> Tensor:
        """Return the gradients, 0 where the update is."""
        return g * (u != 0)


@dataclass(frozen=True)
class Signs(Lens):
    """``sign(u)`` against ``sign(g)``."""

    @property
    def takes_signs(self) -> bool:
        """It does."""
        return True

    def update(self, name: str, u: Tensor) -> Tensor:
        """Return the signs of the update."""
        return u.sign()

    def gradient(self, name: str, g: Tensor, u: Tensor) -> Tensor:
        """Return the signs of the gradients."""
        return g.sign()


@dataclass(frozen=True)
class LowFrequencies(Lens):
    """Only the lowest frequencies of each array under the orthonormal DCT-II.

    Parameters
    ----------
    share
        Of an array's d coefficients, rounded up (:func:`lowest`).
    """

    share: float

    def __post_init__(self) -> None:
        expect(0 < self.share <= 1, "share", self.share, "in (0, 1]")

    @property
    def by_coordinate(self) -> bool:
        """Frequencies are none."""
        return False

    def update(self, name: str, u: Tensor) -> Tensor:
        """Return the update without its higher frequencies."""
        return self._kept(u[None])[0]

    def gradient(self, name: str, g: Tensor, u: Tensor) -> Tensor:
        """Return the gradients without theirs."""
        return self._kept(g)

    def compare(self, name: str, g: Tensor, u: Tensor) -> Compared:
        """Compare n gradients with K updates among the coefficients, as the DCT is a rotation."""
        c, v = self._coefficients(g), self._coefficients(u)
        squares = _resolved(c.square().sum(1), g.square().sum(1))
        return squares[:, None].expand(-1, len(u)), c @ v.T

    def compare_outer(self, name: str, delta: Tensor, a: Tensor, u: Tensor) -> Compared:
        """Compare a dense layer's gradients without writing them down."""
        squares = kept_energy(delta, a, lowest(u[0].numel(), self.share))
        if squares is None:
            return super().compare_outer(name, delta, a, u)
        squares = _resolved(squares, delta.square().sum(1) * a.square().sum(1)).to(delta.dtype)
        dots = _bilinear(delta, a, self._kept(u.flatten(1)).view(u.shape))
        return squares[:, None].expand(-1, len(u)), dots

    def _coefficients(self, values: Tensor) -> Tensor:
        """Return the lowest coefficients of values (n, d)."""
        some = lowest(values.shape[1], self.share)
        return torch.from_numpy(dct(values.numpy(), norm="ortho", axis=1)[:, :some].copy())

    def _kept(self, values: Tensor) -> Tensor:
        coefficients = dct(values.numpy(), norm="ortho", axis=1)
        coefficients[:, lowest(values.shape[1], self.share) :] = 0
        return torch.from_numpy(idct(coefficients, norm="ortho", axis=1))


@dataclass(frozen=True)
class Without(Lens):
    """All but some layers, e.g. one that a defence alone has changed.

    Parameters
    ----------
    layers
        Names of layers or of single arrays.
    """

    layers: Sequence[str]

    def __post_init__(self) -> None:
        expect(len(self.layers) > 0, "layers", self.layers, "at least one")
        object.__setattr__(self, "layers", tuple(self.layers))

    def update(self, name: str, u: Tensor) -> Tensor:
        """Return the update; zeros in these layers."""
        return torch.zeros_like(u) if self._left_out(name) else u

    def gradient(self, name: str, g: Tensor, u: Tensor) -> Tensor:
        """Return the gradients; zeros in these layers."""
        return torch.zeros_like(g) if self._left_out(name) else g

    def _left_out(self, name: str) -> bool:
        return any(name == layer or name.startswith(f"{layer}.") for layer in self.layers)


@dataclass(frozen=True)
class Composed(Lens):
    """Several lenses, the first one first: in the order in which the defences act on an update.

    Parameters
    ----------
    lenses
        At least two.
    """

    lenses: tuple[Lens, ...]

    def __post_init__(self) -> None:
        expect(len(self.lenses) > 1, "lenses", self.lenses, "at least two")

    @property
    def by_coordinate(self) -> bool:
        """Whether all of them are."""
        return all(lens.by_coordinate for lens in self.lenses)

    @property
    def takes_signs(self) -> bool:
        """Whether one of them does."""
        return any(lens.takes_signs for lens in self.lenses)

    @property
    def follows_update(self) -> bool:
        """Whether one of them does."""
        return any(lens.follows_update for lens in self.lenses)

    def compare(self, name: str, g: Tensor, u: Tensor) -> Compared:
        """Compare n gradients with K updates, for all of these at once as far as that can be."""
        first, *rest = self.lenses
        if self.by_coordinate or first.follows_update:
            return super().compare(name, g, u)
        others = Composed(tuple(rest)) if len(rest) > 1 else rest[0]
        moves = torch.stack([first.update(name, one) for one in u])
        return others.compare(name, first.gradient(name, g, u[0]), moves)

    def update(self, name: str, u: Tensor) -> Tensor:
        """Return the update through all of them."""
        for lens in self.lenses:
            u = lens.update(name, u)
        return u

    def gradient(self, name: str, g: Tensor, u: Tensor) -> Tensor:
        """Return the gradients through all of them."""
        for lens in self.lenses:
            g, u = lens.gradient(name, g, u), lens.update(name, u)
        return g


def _resolved(part: Tensor, whole: Tensor) -> Tensor:
    """Return squared norms (n,), 0 for a part of the whole that rounding alone can have left.

    The gradients of a last layer's bias add up to nothing: their lowest frequency is rounding.
    """
    return torch.where(part > _ROUNDING * whole, part, 0)


def _bilinear(delta: Tensor, a: Tensor, u: Tensor) -> Tensor:
    """Return ``δ_nᵀ U_k a_n`` for all n and k: (n, K)."""
    K, outputs, inputs = u.shape
    # The longer side is contracted first: what stands in between is (n, K, shorter side).
    if outputs <= inputs:
        half, rest = a @ u.reshape(K * outputs, inputs).T, delta
    else:
        half, rest = delta @ u.transpose(0, 1).reshape(outputs, K * inputs), a
    return (half.view(len(a), K, min(outputs, inputs)) * rest[:, None]).sum(2)
