"""What all parties of the protocol agree on before it starts, and how its contexts are named.

K. A. Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning",
CCS 2017 (the complete graph); J. H. Bell et al., "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead", CCS 2020 (a sparse random graph of neighbours).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fedmia.errors import ConfigError, expect
from fedmia.records import Params
from fedmia.secagg.codec import Codec, Mean, Words, flatten, floating, unflatten
from fedmia.secagg.distributed_noise import DistributedNoise
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.noise import Noise
from fedmia.secagg.odds import Odds, degree_for

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
        that keep ``corrupt`` and ``dropout`` harmless, all others where nothing less does. With
        fewer than :meth:`fedmia.secagg.odds.Odds.least_degree` it is refused.
    threshold
        How many neighbours' shares give a secret back, and so how many must survive; ``None``
        takes the one that belongs to ``neighbors``. One that colluding clients could reach
        (:class:`fedmia.secagg.odds.Odds`) is refused.
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
        self._check_neighbors()
        self._check_threshold()
        weight = self.max_weight
        expect(
            not self.noise or weight == 1,
            "max_weight",
            weight,
            "1 with noise, whose sensitivity is one client's clip",
        )
        _ = self.codec
        few, colluding = self.noise.min_survivors, self._odds.colluding
        most = self.cohort - colluding
        allowed = f"in 1..{most}, of cohort={self.cohort} less {colluding} who may collude"
        expect(few is None or few <= most, "noise.min_survivors", few, allowed)
        self.check(1)

    def _check_neighbors(self) -> None:
        k, n = self.neighbors, self.cohort
        if k is None:
            return
        expect(2 <= k < n, "neighbors", k, f"in 2..{n - 1}, less than cohort={n}")
        even = k == n - 1 or k % 2 == 0
        expect(even, "neighbors", k, f"an even number, or {n - 1} for the complete graph")
        whole = k == n - 1 or not self.malicious_server
        expect(whole, "neighbors", k, f"{n - 1} or null with malicious_server=true")
        if not self._odds.holds_together(k) or self._odds.least_threshold(k) is None:
            allowed = f"at least {self._odds.least_degree()}, or null, with cohort={n}, "
            allowed += f"corrupt={self.corrupt}, dropout={self.dropout}"
            expect(False, "neighbors", k, allowed)

    def _check_threshold(self) -> None:
        k, t = self.degree, self.threshold
        if t is None:
            return
        if self.malicious_server:
            least = self._odds.signed_threshold()
            why = "or a server that lies could learn both secrets of a client"
            expect(t >= least, "threshold", t, f"at least {least}, {why}")
        least = self._odds.least_threshold(k) or k
        allowed = f"in {least}..{k}, the number of neighbours"
        if t in range(2, least):
            allowed += f", of whom more may collude with corrupt={self.corrupt}"
        expect(least <= t <= k, "threshold", t, allowed)

    def check(self, length: int) -> None:
        """Raise ``ConfigError`` if the noise does not fit updates of so many coordinates."""
        if not self.noise:
            return
        try:
            self.mechanism(length)
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

        With noise these are enough for ``honest_shares`` when all who collude are among them.
        """
        least = self._fewest_for_masks(asked)
        return max(least, self._fewest_for_noise) if self.noise else least

    @property
    def honest_shares(self) -> int:
        """How many honest clients' shares make the noise of a sum whole.

        Those who collude with the server know their own shares of it, which hide nothing. So the
        default is the fewest clients of a whole cohort that the masks open for, less ``corrupt``.
        """
        fewest = self._fewest_for_masks(self.cohort) - self._odds.colluding
        return self.noise.min_survivors or max(1, fewest)

    @property
    def _fewest_for_noise(self) -> int:
        return self.honest_shares + self._odds.colluding

    def _fewest_for_masks(self, asked: int) -> int:
        """Return how many must survive so that all secrets are had, and one sum alone is seen.

        With fewer a graph that is not complete might fall apart, and the sum of each part be seen:
        the bounds hold for at most ``dropout`` of the clients
        (:meth:`fedmia.secagg.odds.Odds.holds_together`), and a ring whose clients each have k
        neighbours holds together as long as those lost and those who collude are fewer than k.
        """
        least = self.shares_needed + 1
        if self.degree < asked - 1:
            odds = Odds(asked, self.corrupt, self.dropout)
            least = max(least, asked - max(odds.lost, self.degree - 1 - odds.colluding))
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
        if clients < self._fewest_for_noise:
            raise ProtocolError(
                f"{clients} clients: expected at least {self._fewest_for_noise}, "
                f"or noise of min_survivors={self.honest_shares} honest ones might be missed"
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
        return self.noise.of(self.cohort, self.honest_shares, length)

    @cached_property
    def _odds(self) -> Odds:
        return Odds(self.cohort, self.corrupt, self.dropout)

    @cached_property
    def _sizes(self) -> tuple[int, int]:
        n, k = self.cohort, self.neighbors
        if self.malicious_server:
            return n - 1, max(2 * n // 3 + 1, self._odds.signed_threshold())
        if k is not None:
            return k, max(k // 2 + 1, self._odds.least_threshold(k) or k)
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
