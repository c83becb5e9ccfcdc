"""The server of the protocol: it passes on what it cannot read, and takes the masks off the sum."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fedmia.secagg import shamir
from fedmia.secagg.codec import Words
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.graph import neighbours
from fedmia.secagg.keys import agree_all, new_private, public_of
from fedmia.secagg.masks import add_mask
from fedmia.secagg.member import pair_seeds
from fedmia.secagg.party import Peer
from fedmia.secagg.protocol import SESSION_BYTES, Protocol, context_of

Shares = Mapping[int, Mapping[int, bytes]]
"""For each client that a secret belongs to, the shares of it by the node that gave them."""


@dataclass
class Execution:
    """One execution of the protocol, as far as it has come.

    Parameters
    ----------
    protocol
        The public parameters.
    server_round
        The round it belongs to.
    session
        Its name, drawn anew for each.
    asked
        How many clients were asked to take part; 0 stands for the whole cohort.
    """

    protocol: Protocol
    server_round: int
    session: bytes = field(default_factory=lambda: os.urandom(SESSION_BYTES))
    asked: int = 0
    members: dict[int, Peer] = field(default_factory=dict)
    graph: dict[int, tuple[int, ...]] = field(default_factory=dict)
    commitments: dict[int, bytes] = field(default_factory=dict)
    sealed: dict[int, dict[int, bytes]] = field(default_factory=dict)

    @property
    def context(self) -> bytes:
        """Ties all that is derived to this execution."""
        return context_of(self.session, self.server_round)

    def admit(self, advertised: Mapping[int, Peer]) -> dict[int, list[Peer]]:
        """Draw the graph among those who sent keys; return each one's neighbours.

        Raises
        ------
        ProtocolError
            If there are too few for the threshold.
        """
        enough(len(advertised) - 1, self.protocol.shares_needed, "other clients sent keys")
        nodes = sorted(advertised)
        self.members = {
            node: replace(advertised[node], point=point)
            for point, node in enumerate(nodes, start=1)
        }
        degree = min(self.protocol.degree, len(nodes) - 1)
        self.graph = neighbours(nodes, degree, os.urandom(32))
        return {n: [self.members[v] for v in around] for n, around in self.graph.items()}

    def take_shares(self, node: int, sealed: Mapping[int, bytes], commitment: bytes) -> None:
        """Keep what a client sealed for its neighbours.

        Raises
        ------
        ProtocolError
            If it did not seal something for each of them and for nobody else.
        """
        if node not in self.graph or set(sealed) != set(self.graph[node]):
            raise ProtocolError(
                f"node {node}: expected shares for its neighbours, all and only them"
            )
        self.sealed[node] = dict(sealed)
        self.commitments[node] = commitment

    def inbound(self) -> dict[int, dict[int, bytes]]:
        """Return what each client that shared has to be handed on; the others are out.

        Raises
        ------
        ProtocolError
            If some client would get fewer shares than the threshold.
        """
        found = {
            node: {v: self.sealed[v][node] for v in self.graph[node] if v in self.sealed}
            for node in sorted(self.sealed)
        }
        fewest = min(map(len, found.values()), default=0)
        enough(fewest, self.protocol.shares_needed, "neighbours of a client shared")
        return found

    def settle(self, survivors: set[int]) -> None:
        """Ask for enough survivors, overall and around each secret; ask for no share before.

        Raises
        ------
        ProtocolError
            If too few sent a masked update, or too few of them hold shares of a secret that the
            sum takes: a survivor's, or that of a lost client with surviving neighbours.
        """
        needed = self.protocol.fewest(self.asked or self.protocol.cohort)
        if len(survivors) < needed:
            raise ProtocolError(
                f"{len(survivors)} clients sent a masked update: expected at least {needed}"
            )
        for node in sorted(self.sealed):
            around = len(survivors & set(self.graph[node]))
            if around or node in survivors:
                what = f"neighbours of node {node} sent a masked update"
                enough(around, self.protocol.shares_needed, what)

    def near(self, node: int, survivors: set[int]) -> list[int]:
        """Return the survivors among a client and its neighbours."""
        return sorted(survivors & {node, *self.graph[node]})

    def unmask(
        self, total: Words, survivors: set[int], own: Shares, of_keys: Shares, model: bytes
    ) -> None:
        """Take all masks that did not cancel off a sum, in place.

        Parameters
        ----------
        total
            Sum of the survivors' masked words.
        survivors
            Who sent them.
        own, of_keys
            Shares of the survivors' own masks, and of the keys of those who were lost after they
            had shared.
        model
            Fingerprint of the model that was sent.

        Raises
        ------
        ProtocolError
            If a secret cannot be had from the shares; the sum is of no use then.
        """
        for node in sorted(survivors):
            seed = self._secret(node, own.get(node, {}), self._is_seed_of(node))
            add_mask(total, seed, -1)
        for node in sorted(set(self.sealed) - survivors):
            around = sorted(survivors & set(self.graph[node]))
            if not around:
                continue
            key = self._secret(node, of_keys.get(node, {}), self._is_key_of(node))
            mask_keys = [self.members[other].mask_key for other in around]
            seeds = pair_seeds(key, mask_keys, self.context, model)
            for other, seed in zip(around, seeds, strict=True):
                add_mask(total, seed, -1 if other < node else +1)

    def _is_seed_of(self, node: int) -> Callable[[bytes], bool]:
        return lambda secret: hashlib.sha256(secret).digest() == self.commitments[node]

    def _is_key_of(self, node: int) -> Callable[[bytes], bool]:
        return lambda secret: public_of(secret) == self.members[node].mask_key

    def _secret(
        self, node: int, given: Mapping[int, bytes], fits: Callable[[bytes], bool]
    ) -> bytes:
        """Return a secret from any run of shares that gives the right one, past a liar."""
        needed = self.protocol.shares_needed
        around = sorted(set(given) & set(self.graph[node]))
        enough(len(around), needed, f"shares of a secret of node {node}")
        for start in range(len(around)):
            chosen = [around[(start + i) % len(around)] for i in range(needed)]
            shares = {self.members[giver].point: given[giver] for giver in sorted(chosen)}
            try:
                secret = shamir.combine(shares, needed)
            except ProtocolError:
                continue
            if fits(secret):
                return secret
            if len(around) == needed:
                break
        raise ProtocolError(f"no {needed} shares of a secret of node {node} fit together")


def check_keys(peer: Peer) -> None:
    """Raise ``ProtocolError`` if nobody could agree on a secret with one of a client's keys."""
    agree_all(new_private(), [peer.mask_key, peer.share_key], b"")


def enough(found: int, needed: int, what: str) -> None:
    """Raise ``ProtocolError`` unless the threshold is reached."""
    if found < needed:
        raise ProtocolError(f"{found} {what}: expected at least threshold={needed}")


def add_up(total: Words | None, words: Words) -> Words:
    """Return the sum so far and one client's words; the first ones are copied.

    Raises
    ------
    ProtocolError
        If the words have another number or type than those before.
    """
    if total is None:
        return words.copy()
    if words.shape != total.shape or words.dtype != total.dtype:
        raise ProtocolError(
            f"{words.shape} words of {words.dtype}: expected {total.shape} {total.dtype}"
        )
    return np.add(total, words, out=total)
