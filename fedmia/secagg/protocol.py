"""What all parties of the protocol agree on before it starts, and how its contexts are named.

K. A. Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning",
CCS 2017 (the complete graph); J. H. Bell et al., "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead", CCS 2020 (a sparse random graph of neighbours).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import ceil

import numpy as np

from fedmia.errors import ConfigError, expect
from fedmia.records import Params
from fedmia.secagg.codec import Codec, Mean, Words, flatten, floating, unflatten
from fedmia.secagg.distributed_noise import DistributedNoise
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.graph import degree_for
from fedmia.secagg.noise import Noise

SESSION_BYTES = 16
"""Of the name of an execution."""


_SMALL = 16
"""Clients up to which everybody is everybody's neighbour."""


@dataclass(frozen=True)
class Protocol:
    """The public parameters of secure aggregation.

    Parameters
    ----------
    cohort
        Most clients of a round.
    corrupt
        Share of the clients that may collude with the server.
    dropout
        Share of the clients that may drop out of a round; with more the sum is not opened
        where the graph is not complete.
    neighbors
        How many others each client shares masks and secrets with; ``None`` takes all others in a
        cohort of up to 16, where that costs nothing and most losses are borne, else the fewest
        that keep ``corrupt`` and ``dropout`` harmless, all others where nothing less does.
    threshold
        How many neighbours' shares give a secret back, and so how many must survive; ``None``
        takes the one that belongs to ``neighbors``.
    clip, bits, max_weight, metric_range, modulus_bits
        See :class:`fedmia.secagg.codec.Codec`.
    malicious_server
        Whether clients sign their keys and their view of who survived, so that a server that
        lies to them learns nothing (Bonawitz et al. 2017, Section 6). Takes the complete graph.
    noise
        What every client adds under its mask.
    """

    cohort: int
    corrupt: float = 0.1
    dropout: float = 0.1
    neighbors: int | None = None
    threshold: int | None = None
    clip: float = 1.0
    bits: int = 16
    max_weight: int = 1000
    metric_range: float = 100.0
    modulus_bits: int | None = None
    malicious_server: bool = False
    noise: Noise = field(default_factory=Noise)

    def __post_init__(self) -> None:
        expect(self.cohort >= 3, "cohort", self.cohort, "at least 3 clients for a sum of others")
        enough = self.cohort >= 4 or not self.malicious_server
        expect(enough, "cohort", self.cohort, "at least 4 with malicious_server=true")
        for name in ("corrupt", "dropout"):
            value = getattr(self, name)
            expect(0 <= value < 0.5, name, value, "in [0, 0.5)")
        k, n = self.neighbors, self.cohort
        expect(k is None or 2 <= k < n, "neighbors", k, f"in 2..{n - 1}, less than cohort={n}")
        even = k is None or k == n - 1 or k % 2 == 0
        expect(even, "neighbors", k, f"an even number, or {n - 1} for the complete graph")
        whole = k is None or k == n - 1 or not self.malicious_server
        expect(whole, "neighbors", k, f"{n - 1} or null with malicious_server=true")
        allowed = f"in 2..{self.degree}, the number of neighbours"
        t = self.threshold
        expect(t is None or 2 <= t <= self.degree, "threshold", t, allowed)
        least = 2 * self.cohort // 3 + 1 if self.malicious_server else 2
        allowed = f"at least {least}, or a server that lies could learn both secrets of a client"
        expect(t is None or t >= least, "threshold", t, allowed)
        weight = self.max_weight
        expect(
            not self.noise or weight == 1,
            "max_weight",
            weight,
            "1 with noise, whose sensitivity is one client's clip",
        )
        assert self.codec
        try:
            assert not self.noise or self.mechanism(1)
        except ConfigError as error:
            raise ConfigError(f"noise.{error}") from None

    @property
    def degree(self) -> int:
        """The number of neighbours of a client."""
        return self._sizes[0]

    @property
    def shares_needed(self) -> int:
        """How many shares give a secret back."""
        return self.threshold or self._sizes[1]

    def fewest(self, asked: int) -> int:
        """Return how many of the clients asked must survive for the sum to be opened.

        With fewer the noise would be too small, or a graph that is not complete might fall apart,
        and the sum of each part be seen: the bounds hold for at most ``dropout`` of the clients
        (:func:`fedmia.secagg.graph.degree_for`), and a ring whose clients each have k neighbours
        holds together as long as those lost and those who collude are fewer than k.
        """
        least = self.shares_needed + 1
        if self.noise:
            least = max(least, self.mechanism(1).min_survivors)
        if self.degree < asked - 1:
            lost, colluding = (
                ceil(Fraction(str(share)) * asked) for share in (self.dropout, self.corrupt)
            )
            least = max(least, asked - max(lost, self.degree - 1 - colluding))
        return least

    @cached_property
    def codec(self) -> Codec:
        """How updates become integers."""
        return Codec(
            self.cohort,
            self.clip,
            self.bits,
            self.max_weight,
            self.metric_range,
            self.modulus_bits,
        )

    def encode(
        self, delta: Params, metrics: Mapping[str, float], weight: int, context: bytes
    ) -> tuple[Words, list[str]]:
        """Return a client's words, not yet masked, and the names of the metrics in them.

        With noise there are none: a metric has no share in the account of the noise. The last
        word is then 1, and so that of the sum the number of clients.
        """
        if not self.noise:
            return self.codec.encode(delta, metrics, weight), list(metrics)
        update = flatten(delta)
        integers = self.mechanism(len(update)).encode(update, _rotation(context))
        return np.append(integers, 1).astype(self.codec.dtype), []

    def length(self, like: Params, names: Sequence[str]) -> int:
        """Return how many words a client sends for a model and metrics of these names."""
        size = sum(like[name].size for name in floating(like))
        return (
            self.mechanism(size).dimension + 1
            if self.noise
            else self.codec.length(size, len(names))
        )

    def decode(
        self, total: Words, like: Params, names: Sequence[str], clients: int, context: bytes
    ) -> Mean:
        """Return the mean that the sum of so many clients' words stands for.

        Raises
        ------
        ProtocolError
            If the sum is none that so many clients could give, or its noise is too small.
        """
        if not self.noise:
            return self.codec.decode(total, like, names, clients)
        mechanism = self.mechanism(len(flatten(like)))
        if clients < mechanism.min_survivors:
            raise ProtocolError(
                f"{clients} clients: expected at least min_survivors={mechanism.min_survivors}, "
                "or the noise would be too small"
            )
        if total.shape != (mechanism.dimension + 1,):
            raise ProtocolError(f"{total.shape} words: expected {mechanism.dimension + 1}")
        integers = self.codec.signed(total[:-1]).astype(np.int64)
        if int(total[-1]) != clients or np.abs(integers).max() > mechanism.integer_bound:
            raise ProtocolError("the masks do not cancel; the sum is out of its range")
        summed = mechanism.decode(integers, _rotation(context))
        return Mean(unflatten(summed / clients, like), {}, clients, None)

    def mechanism(self, length: int) -> DistributedNoise:
        """Return the noise of a round, for updates of so many coordinates."""
        return self.noise.of(self.cohort, self.shares_needed + 1, length)

    @cached_property
    def _sizes(self) -> tuple[int, int]:
        n = self.cohort
        if self.malicious_server:
            return n - 1, 2 * n // 3 + 1
        if self.neighbors is not None:
            return self.neighbors, self.neighbors // 2 + 1
        k, t = degree_for(n, self.corrupt, self.dropout)
        return (n - 1, max((n - 1) // 2 + 1, t)) if n <= _SMALL else (k, t)


def context_of(session: bytes, server_round: int) -> bytes:
    """Return the bytes that tie keys and signatures to one execution of the protocol."""
    return b"fedmia secagg 1|" + session + server_round.to_bytes(8, "big")


def between(context: bytes, purpose: str, sender: int, receiver: int) -> bytes:
    """Return the bytes that tie a message to its purpose and its two ends."""
    ends = sender.to_bytes(8, "big") + receiver.to_bytes(8, "big")
    return b"|".join((context, purpose.encode(), ends))


def fingerprint(params: Params) -> bytes:
    """Return the SHA-256 of a model: names, types, shapes and values, in their order."""
    digest = hashlib.sha256()
    for name, value in params.items():
        digest.update(repr((name, value.dtype.str, value.shape)).encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.digest()


def _rotation(context: bytes) -> bytes:
    """Return the public seed of the rotation, the same for all clients of an execution."""
    return hashlib.sha256(context + b"|rotation").digest()


def roll(context: bytes, nodes: Iterable[int]) -> bytes:
    """Return what clients sign of who survived."""
    ids = b"".join(node.to_bytes(8, "big") for node in sorted(nodes))
    return b"|".join((context, b"survivors", hashlib.sha256(ids).digest()))
