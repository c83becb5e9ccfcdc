"""Noise of a binary tree over rounds: prefix sums with the noise of log₂ T releases, and its ε.

P. Kairouz, B. McMahan, S. Song, O. Thakkar, A. Thakurta, Z. Xu, "Practical and Private (Deep)
Learning without Sampling or Shuffling", ICML 2021 (arXiv 2103.00039), after C. Dwork, M. Naor,
T. Pitassi, G. Rothblum, STOC 2010, and T.-H. H. Chan, E. Shi, D. Song, ICALP 2010.

Round t is a leaf. Of the binary tree's nodes, the prefix sums need one that ends at each t: the sum
over the rounds in (t − 2^v, t], 2^v being the largest power of two that divides t. Each such sum
gets noise of its own, once; the sum over rounds 1..t is made of as many as t has binary ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmia.errors import expect
from fedmia.privacy.accounting import Account, gaussian_release
from fedmia.privacy.cost import Cost, Neighbours
from fedmia.privacy.randomness import Gaussian


def squared_sensitivity(rounds: int, groups: int, restart: int | None = None) -> NDArray[np.int64]:
    """Return by how much one client changes all sums of the tree, squared, in units of the clip.

    A client that takes part c_v times in the rounds of a node v changes the node's sum by up to
    c_v, and all of them together by up to (Σ_v c_v²)^½ in L2 norm; the noise is as good as if the
    updates had been fixed beforehand (S. Denisov et al., NeurIPS 2022, arXiv 2202.08312,
    Theorem 2.1; for several turns C. A. Choquette-Choo et al., ICML 2023, arXiv 2211.06530).

    Parameters
    ----------
    rounds
        ≥ 0.
    groups
        A client takes part every so many rounds; the first time in any of the first of these.
    restart
        After so many rounds a new tree begins; ``None``: never.

    Returns
    -------
    NDArray[np.int64]
        After 0, 1, … rounds, that of the client with the largest, shape (rounds + 1,).
    """
    ends = np.arange(1, rounds + 1)
    leaf = (ends - 1) % (restart or max(rounds, 1)) + 1
    starts = ends - (leaf & -leaf)
    worst = np.zeros(rounds + 1, np.int64)
    for group in range(min(groups, rounds)):
        taken = np.concatenate([[0], np.cumsum((ends - 1) % groups == group)])
        inside = taken[ends] - taken[starts]
        worst[1:] = np.maximum(worst[1:], np.cumsum(inside**2))
    return worst


@dataclass(frozen=True)
class TreeAccount(Cost):
    """ε of the noisy prefix sums, exact: after t rounds they are one release of Gaussian noise.

    Parameters
    ----------
    noise_multiplier
        Standard deviation of a node's noise over the clip.
    rounds
        Most rounds that are asked about, ≥ 1.
    groups
        A client takes part in one round of every so many, ≥ 1.
    restart
        After so many rounds a new tree begins; ``None``: never.
    neighbours
        ``add_remove``: a client's updates are all zero, its place in the schedule stays.
    delta
        In (0, 1).
    """

    noise_multiplier: float
    rounds: int
    groups: int
    restart: int | None
    neighbours: Neighbours
    delta: float

    def __post_init__(self) -> None:
        expect(self.noise_multiplier >= 0, "noise_multiplier", self.noise_multiplier, "at least 0")
        expect(self.rounds >= 1, "rounds", self.rounds, "at least 1")
        expect(self.groups >= 1, "groups", self.groups, "at least 1")
        again = self.restart
        expect(again is None or again >= 1, "restart", again, "at least 1, or null")

    @property
    def method(self) -> str:
        """The analysis that gives ε."""
        return self._release(1).method

    def epsilon(self, rounds: int) -> float:
        """Return ε after so many rounds, 0 after none; ``inf`` without noise."""
        return self._release(rounds).epsilon(1) if rounds else 0.0

    def epsilon_rdp(self, rounds: int) -> float | None:
        """Return ε by Rényi differential privacy."""
        return self._release(rounds).epsilon_rdp(1) if rounds else 0.0

    def under(self, neighbours: Neighbours) -> "TreeAccount":
        """Return the account of the same noise for other neighbours."""
        return replace(self, neighbours=neighbours)

    def _release(self, rounds: int) -> Account:
        expect(1 <= rounds <= self.rounds, "rounds", rounds, f"in 1..{self.rounds}")
        squared = _sensitivities(self.rounds, self.groups, self.restart)[rounds]
        z = self.noise_multiplier / squared**0.5
        return Account(gaussian_release(z), self.neighbours, self.delta)


@lru_cache(maxsize=64)
def _sensitivities(rounds: int, groups: int, restart: int | None) -> Sequence[int]:
    return tuple(squared_sensitivity(rounds, groups, restart).tolist())


class TreeNoise:
    """The noise of prefix sums, as what is added from one to the next.

    Of the nodes' noise only what is in the last prefix sum is kept, at most log₂ T + 1 vectors.

    Parameters
    ----------
    restart
        After so many rounds a new tree begins, and what the sum has of noise stays; ``None``:
        never.
    """

    def __init__(self, restart: int | None = None) -> None:
        self._restart = restart
        self._leaf = 0
        self.nodes: list[NDArray[np.floating[Any]]] = []

    def step(self, source: Gaussian, size: int) -> NDArray[np.floating[Any]]:
        """Return the noise of the next prefix sum less that of the last one, shape (size,).

        Parameters
        ----------
        source
            Of the noise of the node that ends here.
        size
            The same in all steps.
        """
        if self._leaf == self._restart:
            self._leaf, self.nodes = 0, []
        self._leaf += 1
        joined = (self._leaf & -self._leaf).bit_length() - 1
        fresh = source(size)
        change = fresh.copy()
        for _ in range(joined):
            change -= self.nodes.pop()
        self.nodes.append(fresh)
        return change
