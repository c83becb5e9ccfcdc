"""What noise costs that the clients add under the mask, each a share of it.

Skellam: N. Agarwal, P. Kairouz, Z. Liu, The Skellam Mechanism for Differentially Private Federated
Learning, NeurIPS 2021 (arXiv 2110.04995), Corollary 3.6. With variance σ² in each coordinate of
the sum and sensitivities Δ₁, Δ₂, for integers α ≥ 2,

    D(α) ≤ αΔ₂²/2σ² + min(((2α − 1)Δ₂² + 6Δ₁)/4σ⁴, 3Δ₁/2σ²).

Discrete Gaussian: P. Kairouz, Z. Liu, T. Steinke, The Distributed Discrete Gaussian Mechanism for
Federated Learning with Secure Aggregation, ICML 2021 (arXiv 2102.06387), section 3. In each of d
coordinates the sum of m shares, each of variance s², has the probabilities of a discrete Gaussian
of variance ms² but for factors within exp(±τ/2):

    τ = 10 Σ_{k<m} exp(−2π²s²k/(k+1)),
    D(α) ≤ min( αΔ₂²/2ms² + (2α − 1)/(α − 1)·τd/2,  α/2·(Δ₂/(√m·s) + τ√d)² ).

The first is what the factor gives at once, and a little above the theorem's own.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedmia.errors import expect
from fedmia.privacy.cost import Cost, Neighbours
from fedmia.privacy.rdp import epsilon_of_divergences
from fedmia.secagg.distributed_noise import NoiseStatement

Floats = NDArray[np.float64]

ORDERS: Floats = np.unique(np.round(np.geomspace(2, 4096, 240)))
"""α: integers, for which the Skellam bound is stated."""


@dataclass(frozen=True)
class DistributedAccount(Cost):
    """ε of a masked sum with noise from its clients, repeated every round.

    To remove a client is to set its update to zero while its share of the noise stays.

    Parameters
    ----------
    statement
        Of one round's sum.
    delta
        δ, in (0, 1).
    neighbours
        To replace a client changes the sum by up to twice the sensitivities.

    Raises
    ------
    ConfigError
        If ``delta`` is out of its range.
    """

    statement: NoiseStatement
    delta: float
    neighbours: Neighbours = Neighbours.ADD_REMOVE

    def __post_init__(self) -> None:
        expect(0 < self.delta < 1, "delta", self.delta, "in (0, 1)")

    @property
    def method(self) -> str:
        """Always ``RDP``."""
        return "RDP"

    def epsilon(self, rounds: int) -> float:
        """Return ε after so many rounds, 0 after none."""
        if rounds == 0:
            return 0.0
        return epsilon_of_divergences(rounds * self._divergences(), self.delta, ORDERS)

    def epsilon_rdp(self, rounds: int) -> float:
        """Return the same: there is no other bound."""
        return self.epsilon(rounds)

    def under(self, neighbours: Neighbours) -> "DistributedAccount":
        """Return the account of the same noise for other neighbours."""
        return replace(self, neighbours=neighbours)

    def _divergences(self) -> Floats:
        """Return bounds of one round's Rényi divergences at ``ORDERS``, shape (orders,)."""
        statement = self.statement
        factor = 2.0 if self.neighbours is Neighbours.REPLACE_ONE else 1.0
        l2, variance = factor * statement.l2_sensitivity, float(statement.variance_of_sum)
        if statement.mechanism == "skellam":
            return skellam_divergences(factor * statement.l1_sensitivity, l2, variance)
        return discrete_gaussian_divergences(l2, variance, statement.survivors, statement.dimension)


def account_of(statement: NoiseStatement, delta: float) -> DistributedAccount:
    """Return the account of a masked sum if a client's whole update is added or removed."""
    return DistributedAccount(statement, delta)


def skellam_divergences(l1: float, l2: float, variance: float, orders: Floats = ORDERS) -> Floats:
    """Return bounds of the divergences of Skellam noise, shape (orders,).

    Parameters
    ----------
    l1, l2
        Largest change of the integer sum in either norm.
    variance
        Of the noise in a coordinate of the sum.
    orders
        Integers ≥ 2.
    """
    large = ((2 * orders - 1) * l2**2 + 6 * l1) / (4 * variance**2)
    return orders * l2**2 / (2 * variance) + np.minimum(large, 3 * l1 / (2 * variance))


def discrete_gaussian_divergences(
    l2: float, variance: float, shares: int, dimension: int, orders: Floats = ORDERS
) -> Floats:
    """Return bounds of the divergences of a sum of discrete Gaussian shares, shape (orders,).

    Parameters
    ----------
    l2
        Largest change of the integer sum in L2 norm.
    variance
        Of the noise in a coordinate of the sum.
    shares
        How many alike make up that noise.
    dimension
        Coordinates.
    orders
        α > 1.
    """
    tau = unlikeness(variance / shares, shares)
    mu = l2 / math.sqrt(variance)
    apart = orders * mu**2 / 2 + (2 * orders - 1) / (orders - 1) * tau * dimension / 2
    together = orders / 2 * (mu + tau * math.sqrt(dimension)) ** 2
    return np.minimum(apart, together)


def unlikeness(variance: float, shares: int) -> float:
    """Return τ of ``shares`` discrete Gaussians, each of this variance; 0 for a single one."""
    k = np.arange(1, shares)
    return float(10 * np.sum(np.exp(-2 * math.pi**2 * variance * k / (k + 1))))
