"""Who masks with whom: a random k-regular graph.

J. Bell, K. Bonawitz, A. Gascón, T. Lepoint, M. Raykova, Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead, CCS 2020 (eprint 2020/704), Section 3: instead of all others, a client
shares keys and masks with its k = O(log n) neighbours in a Harary graph, a ring of the clients in
random order where each is joined to the k/2 next on either side.
"""

from collections.abc import Iterator, Sequence

from fedmia.errors import expect
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.masks import key_stream


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
