"""The degree k and threshold t with which a random k-regular graph of neighbours is safe.

J. Bell, K. Bonawitz, A. Gascón, T. Lepoint, M. Raykova, Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead, CCS 2020 (eprint 2020/704), Section 3.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import ceil, floor, log

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from fedmia.errors import expect

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Odds:
    """What may go wrong around one client, or between them, in a random k-regular graph.

    c = ⌈corrupt·n⌉ clients collude with the server and d = ⌈dropout·n⌉ are lost, neither chosen
    by looking at the graph (the assumption of the paper's Section 3).

    Parameters
    ----------
    n
        Clients in the round, at least 3.
    corrupt, dropout
        Shares of them in [0, 1).
    sigma
        Bits of security, above 0.

    Raises
    ------
    ConfigError
        If a value is outside its range.
    """

    n: int
    corrupt: float
    dropout: float
    sigma: float = 40

    def __post_init__(self) -> None:
        expect(self.n >= 3, "n", self.n, "3 or more clients")
        expect(0 <= self.corrupt < 1, "corrupt", self.corrupt, "a share in [0, 1)")
        expect(0 <= self.dropout < 1, "dropout", self.dropout, "a share in [0, 1)")
        expect(self.sigma > 0, "sigma", self.sigma, "a number of bits above 0")

    @cached_property
    def colluding(self) -> int:
        """How many clients collude with the server: c."""
        return _count(self.corrupt, self.n)

    @cached_property
    def lost(self) -> int:
        """How many clients are lost: d."""
        return _count(self.dropout, self.n)

    @cached_property
    def factorials(self) -> Floats:
        """Logarithms of 0!, …, n!, shape (n + 1,)."""
        return np.asarray(gammaln(np.arange(self.n + 1) + 1.0), np.float64)

    def least_threshold(self, k: int) -> int | None:
        """Return the smallest threshold t in 2..k with condition (a); ``None`` if there is none.

        An honest client has t or more colluding neighbours, who could open its secrets, with
        probability at most n·P[Hyp(n-1, c, k) ≥ t] ≤ 2^-(σ+1).
        """
        tail = np.logaddexp.accumulate(self.log_pmf(self.colluding, k)[::-1])[::-1]
        safe = np.flatnonzero(log(self.n) + tail[2:] <= self._secure)
        return int(safe[0]) + 2 if safe.size else None

    def holds_together(self, k: int) -> bool:
        """Return whether condition (b) holds.

        The graph of the honest survivors falls apart, so that more than one sum is seen, with
        probability at most n(n-k-1)/2 · C(n-k, c+d-k)/C(n, c+d) ≤ 2^-(σ+1): the ring must lose two
        runs of k/2 neighbours, each pair of runs with the probability that k given clients are
        among the c + d (a union bound over the pairs). A complete graph never falls apart.
        """
        whole = k >= self.n - 1
        return whole or _log_split(self.factorials, self.colluding + self.lost, k) <= self._secure

    def least_degree(self) -> int:
        """Return the smallest even k, else n - 1, for which some threshold is safe.

        Raises
        ------
        ConfigError
            If none is, even in the complete graph.
        """
        for k in range(2, self.n - 1, 2):
            if self.holds_together(k) and self.least_threshold(k) is not None:
                return k
        self._expect_an_honest_one()
        return self.n - 1

    def complete_threshold(self) -> int:
        """Return the threshold of the complete graph: the smallest above (n - 1)/2 and above c.

        Raises
        ------
        ConfigError
            If no threshold is safe, or fewer than this one survive.
        """
        self._expect_an_honest_one()
        t = max((self.n - 1) // 2, self.colluding) + 1
        most = floor(1000 * Fraction(self.n - 1 - t, self.n)) / 1000
        allowed = f"at most {most:g}, which leaves {t} of {self.n - 1} neighbours at n={self.n}"
        expect(t <= self.n - 1 - self.lost, "dropout", self.dropout, allowed)
        return t

    def signed_threshold(self) -> int:
        """Return the smallest threshold with which a server that lies opens one secret at most.

        It can show two signed lists, on one of which a client is lost. Each of the n - c honest
        clients signs and answers one of them, the colluding ones both; with the shares of both
        secrets it needs 2t of them. So 2t > n - 1 + c, and with it t > c (Bonawitz et al. 2017,
        Section 6, whose t > 2n/3 is the same at c = n/3).

        Raises
        ------
        ConfigError
            If fewer neighbours than that survive.
        """
        t = (self.n - 1 + self.colluding) // 2 + 1
        allowed = f"less, or a dropout of less than {self.dropout}: {t} of {self.n - 1} neighbours "
        allowed += "must stay with malicious_server=true, or both secrets of a client could be had"
        expect(t <= self.n - 1 - self.lost, "corrupt", self.corrupt, allowed)
        return t

    def log_pmf(self, marked: int, k: int) -> Floats:
        """Return log P[Hyp(n-1, marked, k) = x] for x = 0 … k, shape (k + 1,)."""
        return _log_pmf(self.factorials, self.n - 1, marked, k)

    @property
    def _secure(self) -> float:
        return -(self.sigma + 1) * log(2)

    def _expect_an_honest_one(self) -> None:
        n = self.n
        allowed = f"at most {floor(1000 * Fraction(n - 2, n)) / 1000:g}, or no neighbour is honest"
        expect(self.colluding <= n - 2, "corrupt", self.corrupt, allowed)


@lru_cache(maxsize=256)
def degree_for(
    n: int, corrupt: float, dropout: float, sigma: float = 40, eta: float = 30
) -> tuple[int, int]:
    """Return the smallest even degree k, and for it the smallest threshold t, that are safe.

    Conditions (a), :meth:`Odds.least_threshold`, and (b), :meth:`Odds.holds_together`, and

    (c) a client keeps fewer than t surviving neighbours, and the round is lost, with probability at
        most n·P[Hyp(n-1, n-1-d, k) < t] ≤ 2^-η.

    Hyp(N, K, k) counts the marked among k drawn of N with K marked; its tails are summed exactly,
    with union bounds over the n clients. t is at least 2. Where no k below n - 1 is enough the
    graph is complete, (b) holds by itself, and t is the smallest above (n - 1)/2 and above c that
    n - 1 - d survivors reach.

    The bounds answer to a server that follows the protocol. Against one that lies about who
    survived see :meth:`Odds.signed_threshold`.

    Parameters
    ----------
    n
        Clients in the round, at least 3.
    corrupt, dropout
        Shares of them in [0, 1).
    sigma, eta
        Bits of security and of correctness, above 0.

    Raises
    ------
    ConfigError
        If a value is outside its range, or no threshold is safe even in the complete graph.
    """
    odds = Odds(n, corrupt, dropout, sigma)
    expect(eta > 0, "eta", eta, "a number of bits above 0")
    for k in range(2, n - 1, 2):
        if not odds.holds_together(k) or (t := odds.least_threshold(k)) is None:
            continue
        short = np.logaddexp.reduce(odds.log_pmf(max(0, n - 1 - odds.lost), k)[:t])
        if log(n) + short <= -eta * log(2):
            return k, t
    return n - 1, odds.complete_threshold()


def _count(share: float, n: int) -> int:
    """Return ⌈share·n⌉ of the share as it is written: 0.29 of 100 is 29."""
    return ceil(Fraction(str(share)) * n)


def _log_split(factorials: Floats, bad: int, k: int) -> float:
    n = factorials.size - 1
    bad = min(bad, n)
    if bad < k:
        return -np.inf
    pairs = log(n) + log(n - k - 1) - log(2)
    chosen = factorials[bad] + factorials[n - k] - factorials[bad - k] - factorials[n]
    return float(pairs + chosen)


def _log_pmf(factorials: Floats, population: int, marked: int, k: int) -> Floats:
    """Return log P[Hyp(population, marked, k) = x] for x = 0 … k, shape (k + 1,)."""
    x = np.arange(k + 1)
    possible = (x <= marked) & (k - x <= population - marked)
    y = x[possible]

    def choose(total: int, part: NDArray[np.int_] | int) -> Floats:
        log_choose: Floats = factorials[total] - factorials[part] - factorials[total - part]
        return log_choose

    result = np.full(k + 1, -np.inf)
    result[possible] = (
        choose(marked, y) + choose(population - marked, k - y) - choose(population, k)
    )
    return result
