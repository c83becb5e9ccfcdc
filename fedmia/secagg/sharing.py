"""Additive secret sharing between parties that do not collude: a client, and one party.

Words x are split into P shares that add up to x modulo 2^32 or 2^64: P − 1 are key streams of
32-byte seeds, the last is what is left of x, under one more key stream for its party. Any P − 1
shares are uniform. A party adds the shares of those clients that all parties got one from and
publishes that sum; the sums of all parties together are the sum of the clients' words, exactly.
Splitting a sum among aggregators so: D. Bogdanov, S. Laur, J. Willemson, "Sharemind: A Framework
for Fast Privacy-Preserving Computations", ESORICS 2008. Shares as seeds: H. Corrigan-Gibbs,
D. Boneh, "Prio: Private, Robust, and Scalable Computation of Aggregate Statistics", NSDI 2017.
"""

import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from fedmia.secagg import keys
from fedmia.secagg.codec import Words
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.masks import add_mask
from fedmia.secagg.protocol import between

_SEED = 32

KEEPER = 0
"""The number of the party that keeps the vector; the others keep seeds."""


@dataclass(frozen=True)
class Sealed:
    """What a client sends beside its words: its key for this execution, and a message a party."""

    key: bytes
    messages: tuple[bytes, ...]


def split(words: Words, parties: Sequence[bytes], context: bytes, node: int) -> Sealed:
    """Turn words, in place, into the share that travels as a vector; return the other ones.

    Parameters
    ----------
    words
        Shape (length,), uint32 or uint64.
    parties
        The X25519 public key of each.
    context
        Ties the shares to an execution and to what its clients were asked.
    node
        The client.

    Raises
    ------
    ProtocolError
        If a party's key is malformed.
    """
    private = keys.new_private()
    seeds = [os.urandom(_SEED) for _ in parties]
    for seed in seeds:
        add_mask(words, seed, +1)
    contents = [*seeds]
    contents[KEEPER] += hashlib.sha256(words.tobytes()).digest()
    sealed = tuple(
        keys.seal(
            keys.agree(private, public, context + b"|party"),
            content,
            between(context, "party", node, number),
        )
        for number, (public, content) in enumerate(zip(parties, contents, strict=True))
    )
    return Sealed(keys.public_of(private), sealed)


class Party:
    """One aggregator: its key, and what it was given in the execution under way.

    Parameters
    ----------
    number
        Its place among the parties.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._private = keys.new_private()
        self._context = b""
        self._round = 0
        self._published = True
        self._seeds: dict[int, bytes] = {}
        self._vectors: dict[int, Words] = {}

    @property
    def key(self) -> bytes:
        """Its X25519 public key."""
        return keys.public_of(self._private)

    def begin(self, server_round: int, context: bytes) -> None:
        """Forget the last execution and begin one.

        Raises
        ------
        ProtocolError
            If the round is not later than the last one.
        """
        if server_round <= self._round:
            raise ProtocolError(f"round {server_round}: expected a later one than {self._round}")
        self._round, self._context, self._published = server_round, context, False
        self._seeds, self._vectors = {}, {}

    def take(self, node: int, sealed: Sealed, words: Words) -> None:
        """Take one client's share; ``words`` are its vector, of use to the keeper alone.

        Raises
        ------
        ProtocolError
            If the share does not authenticate, or the vector is not the one that was sent.
        """
        if node in self._seeds:
            raise ProtocolError(f"a second share from node {node}")
        key = keys.agree(self._private, sealed.key, self._context + b"|party")
        message = sealed.messages[self.number]
        plain = keys.unseal(key, message, between(self._context, "party", node, self.number))
        seed, digest = plain[:_SEED], plain[_SEED:]
        if self.number == KEEPER:
            if hashlib.sha256(words.tobytes()).digest() != digest:
                raise ProtocolError("the words are not those that were sent")
            self._vectors[node] = words
        elif digest or len(seed) < _SEED:
            raise ProtocolError(f"{len(plain)} bytes: expected a seed of {_SEED}")
        self._seeds[node] = seed

    def share(self, node: int, length: int, dtype: DTypeLike) -> Words:
        """Return what this party knows of a client, shape (length,): uniform without the rest."""
        share: Words = np.zeros(length, dtype)
        self._add(share, node)
        return share

    def publish(self, nodes: Collection[int], fewest: int, length: int, dtype: DTypeLike) -> Words:
        """Return the sum of these clients' shares, shape (length,); once in an execution.

        Raises
        ------
        ProtocolError
            If they are fewer than ``fewest``, one of them sent no share, or a sum is out already:
            two sums of different clients would give away what lies between them.
        """
        if self._published:
            raise ProtocolError(f"party {self.number}: a sum of this execution is out already")
        if missing := set(nodes) - set(self._seeds):
            raise ProtocolError(f"party {self.number}: no share from node {min(missing)}")
        if len(set(nodes)) < fewest:
            allowed = f"expected at least min_clients={fewest}"
            raise ProtocolError(f"party {self.number}: {len(set(nodes))} clients, {allowed}")
        self._published = True
        total: Words = np.zeros(length, dtype)
        for node in set(nodes):
            self._add(total, node)
        return total

    def _add(self, total: Words, node: int) -> None:
        if self.number == KEEPER:
            np.add(total, self._vectors[node], out=total)
        add_mask(total, self._seeds[node], -1)
