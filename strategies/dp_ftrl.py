"""DP-FTRL: differential privacy for whole clients where nobody can sample them at random.

P. Kairouz, B. McMahan, S. Song, O. Thakkar, A. Thakurta, Z. Xu, "Practical and Private (Deep)
Learning without Sampling or Shuffling", ICML 2021 (arXiv 2103.00039).
"""

from dataclasses import dataclass

import numpy as np
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedmia.errors import expect
from fedmia.privacy.budget import Budget
from fedmia.privacy.cost import Neighbours
from fedmia.privacy.lattice import rounded
from fedmia.privacy.randomness import gaussian_source
from fedmia.privacy.tree import TreeAccount, TreeNoise
from strategies.central import Central


@dataclass(frozen=True)
class _Rounds:
    """The schedule; called with a noise multiplier, it gives its account."""

    rounds: int
    groups: int
    restart: int | None
    neighbours: Neighbours
    delta: float

    def __call__(self, noise_multiplier: float) -> TreeAccount:
        settings = (self.rounds, self.groups, self.restart, self.neighbours, self.delta)
        return TreeAccount(noise_multiplier, *settings)


class DpFtrl(Central):
    """Clip each client's update, and give the sum over all rounds so far the noise of a tree.

    The clients, by rank of their node ids in the first round, take turns in ``groups``: the i-th
    takes part in the rounds t with t − 1 ≡ i modulo ``groups``, whoever else is there. The wrapped
    strategy gets
    w + (Σ_k clip(Δ_k, C) + n_t − n_{t−1}) / (N/groups), n_t being the noise of the t-th prefix sum:
    a sum of independent N(0, (zC)²) over the nodes that it is made of.

    Trees are for many groups and few turns of a client. With one group, fresh noise every round
    (``restart`` 1) is the better mechanism.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates, with ``fraction_train`` 1.
    clip
        C, bound of the L2 norm of a client's update.
    groups
        A client takes part in one round of every so many.
    restart
        After so many rounds a new tree begins; ``None``: never.
    noise_multiplier, epsilon, delta
        See :class:`fedmia.privacy.budget.Budget`.
    neighbours
        ``add_remove`` (a client's updates are all zero) or ``replace_one``.
    rounds, clients, clip_by, secure_noise, seed
        See :class:`strategies.central.Central`.
    """

    def __init__(
        self,
        inner: Strategy,
        clip: float,
        rounds: int,
        clients: int,
        groups: int = 1,
        restart: int | None = None,
        noise_multiplier: float | None = None,
        epsilon: float | None = None,
        delta: float = 1e-5,
        neighbours: str = "add_remove",
        clip_by: str = "server",
        secure_noise: bool = False,
        seed: int = 0,
    ) -> None:
        relations = [str(relation) for relation in Neighbours]
        expect(neighbours in relations, "neighbours", neighbours, f"one of {', '.join(relations)}")
        expect(1 <= groups <= clients, "groups", groups, f"in 1..{clients}, a client each at least")
        self.groups, self.restart = groups, restart
        account_of = _Rounds(rounds, groups, restart, Neighbours(neighbours), delta)
        budget = Budget(noise_multiplier, epsilon, delta)
        super().__init__(
            inner, clip, budget, account_of, rounds, clients, clip_by, secure_noise, seed
        )
        self._tree = TreeNoise(restart)
        self._steps = 0

    @property
    def cohort(self) -> float:
        """By what the sum is divided: the mean size of a group, whoever answers."""
        return self.clients / self.groups

    @property
    def asks(self) -> tuple[str, int, int]:
        """Setting and value that decide how many clients are asked in a round, and the fewest."""
        return "groups", self.groups, self.clients // self.groups

    @property
    def reasons(self) -> tuple[str, ...]:
        """What ε assumes of who takes part and of the noise, a line each."""
        turn = "every round" if self.groups == 1 else f"one round of every {self.groups}"
        return (
            f"a client takes part in {turn}, by a schedule fixed beforehand, and in no other",
            "a client's place in the schedule stays if its updates are left out",
        )

    def participants(self, server_round: int) -> NDArray[np.bool_]:
        """Return whose turn it is, by rank of the node id in the first round, shape (clients,)."""
        turn = (server_round - 1) % self.groups
        return np.asarray(np.arange(self.clients) % self.groups == turn)

    def noise(self, server_round: int, size: int) -> NDArray[np.float64]:
        """Return n_t − n_s in units of the clip, shape (size,), since the last sum at s."""
        change = np.zeros(size)
        while self._steps < server_round:
            self._steps += 1
            change += self._tree.step(self._node, size)
        return change

    def _node(self, size: int) -> NDArray[np.float64]:
        """Return a new node's noise on the lattice, where nodes are added and taken off exactly."""
        source = gaussian_source(self.secure_noise, self.seed, "dp tree", self._steps)
        return rounded(self.noise_multiplier * source(size))
