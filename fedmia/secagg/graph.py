"""Who masks with whom: a random k-regular graph, and the k and threshold t that make it safe.

J. Bell, K. Bonawitz, A. Gascón, T. Lepoint, M. Raykova, Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead, CCS 2020 (eprint 2020/704), Section 3: instead of all others, a client
shares keys and masks with its k = O(log n) neighbours in a Harary graph, a ring of the clients in
random order where each is joined to the k/2 next on either side.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from math import ceil, log

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from fedmia.errors import expect
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.masks import key_stream

Floats = NDArray[np.float64]


def neighbours(nodes: Sequence[int], degree: int, seed: bytes) -> dict[int, tuple[int, ...]]:
    """Return every node's neighbours, ascending: a Harary graph over the nodes in random order.

    The graph is symmetric, connected and without loops, and the same whatever the order of
    ``nodes``. It is complete where ``degree`` is n - 1 or more. No graph has an odd degree at an
    odd number of nodes: the degree is then one more.

    Parameters
    ----------
    nodes
        Shape (n,), distinct.
    degree
        k, at least 2 (or n - 1).
    seed
        32 bytes; the order is drawn from its key stream, uniform over all n! orders.

    Raises
    ------
    ConfigError
        If ``degree`` is below 2 and the graph would not be connected.
    ProtocolError
        If a node comes twice.
    """
    n, ring = len(nodes), sorted(nodes)
    if len(set(ring)) < n:
        raise ProtocolError("a node comes twice in the graph of neighbours")
    if degree >= n - 1:
        return {u: tuple(v for v in ring if v != u) for u in ring}
    expect(degree >= 2, "degree", degree, f"2 or more, or all {n - 1} others")
    _shuffle(ring, seed)
    steps = list(_steps(n, degree))
    return {u: tuple(sorted(ring[(i + s) % n] for s in steps)) for i, u in enumerate(ring)}


def _steps(n: int, degree: int) -> Iterator[int]:
    """Yield how far along the ring the neighbours lie; an odd degree adds the node opposite."""
    half, odd = divmod(degree, 2)
    if odd and n % 2:
        half, odd = half + 1, 0
    yield from range(1, half + 1)
    yield from range(-half, 0)
    if odd:
        yield n // 2


def _shuffle(ring: list[int], seed: bytes) -> None:
    """Fisher-Yates in place, each index from 64 bits of the stream with rejection."""
    stream = key_stream(seed)
    for last in range(len(ring) - 1, 0, -1):
        bound = last + 1
        limit = 2**64 - 2**64 % bound
        while (word := int.from_bytes(stream.update(bytes(8)), "little")) >= limit:
            pass
        chosen = word % bound
        ring[last], ring[chosen] = ring[chosen], ring[last]


@lru_cache(maxsize=256)
def degree_for(
    n: int, corrupt: float, dropout: float, sigma: float = 40, eta: float = 30
) -> tuple[int, int]:
    """Return the smallest even degree k, and for it the smallest threshold t, that are safe.

    c = ⌈corrupt·n⌉ clients collude with the server and d = ⌈dropout·n⌉ are lost, neither chosen
    by looking at the graph (the assumption of the paper's Section 3). Then

    (a) an honest client has t or more colluding neighbours, who could open its secrets, with
        probability at most n·P[Hyp(n-1, c, k) ≥ t] ≤ 2^-(σ+1);
    (b) the graph of the honest survivors falls apart, so that more than one sum is seen, with
        probability at most n(n-k-1)/2 · C(n-k, c+d-k)/C(n, c+d) ≤ 2^-(σ+1): the ring must lose two
        runs of k/2 neighbours, each pair of runs with the probability that k given clients are
        among the c + d (a union bound over the pairs);
    (c) a client keeps fewer than t surviving neighbours, and the round is lost, with probability at
        most n·P[Hyp(n-1, n-1-d, k) < t] ≤ 2^-η.

    Hyp(N, K, k) counts the marked among k drawn of N with K marked; its tails are summed exactly,
    with union bounds over the n clients. t is at least 2. Where no k below n - 1 is enough the
    graph is complete, (b) holds by itself, and t is the smallest above (n - 1)/2 and above c that
    n - 1 - d survivors reach.

    The bounds answer to a server that follows the protocol. One that tells some of a client's
    neighbours that it is alive and others that it is lost, and has colluding ones among them to
    answer twice, opens both secrets if 2t ≤ k plus those: such lists must be checked by the
    protocol.

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
    expect(n >= 3, "n", n, "3 or more clients")
    expect(0 <= corrupt < 1, "corrupt", corrupt, "a share in [0, 1)")
    expect(0 <= dropout < 1, "dropout", dropout, "a share in [0, 1)")
    expect(sigma > 0, "sigma", sigma, "a number of bits above 0")
    expect(eta > 0, "eta", eta, "a number of bits above 0")
    colluding, lost = _count(corrupt, n), _count(dropout, n)
    factorials = gammaln(np.arange(n + 1) + 1.0)
    secure, correct = -(sigma + 1) * log(2), -eta * log(2)
    for k in range(2, n - 1, 2):
        if _log_split(factorials, colluding + lost, k) > secure:
            continue
        tail = np.logaddexp.accumulate(_log_pmf(factorials, n - 1, colluding, k)[::-1])[::-1]
        safe = np.flatnonzero(log(n) + tail[2:] <= secure)
        if not safe.size:
            continue
        t = int(safe[0]) + 2
        short = np.logaddexp.reduce(_log_pmf(factorials, n - 1, n - 1 - lost, k)[:t])
        if log(n) + short <= correct:
            return k, t
    t = max((n - 1) // 2, colluding) + 1
    reached = t <= n - 1 - lost
    expect(reached, "dropout", dropout, f"a share that leaves {t} of {n - 1} neighbours at n={n}")
    return n - 1, t


def _count(share: float, n: int) -> int:
    """Return ⌈share·n⌉ of the share as it is written: 0.29 of 100 is 29."""
    return ceil(Fraction(str(share)) * n)


def _log_split(factorials: Floats, bad: int, k: int) -> float:
    n = factorials.size - 1
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
