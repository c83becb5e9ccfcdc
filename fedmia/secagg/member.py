"""One client of the protocol: pure functions of what it remembers and what the server sent.

Every stage checks that it is this execution's turn, so that a message that is replayed, or comes
out of order, is refused by name; what a client gives away of a neighbour is either its share of
that neighbour's own mask or its share of the neighbour's key, once, never both.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fedmia.secagg import keys, shamir
from fedmia.secagg.codec import Words
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.masks import add_mask
from fedmia.secagg.party import Identity, Peer, Secrets
from fedmia.secagg.protocol import SESSION_BYTES, Protocol, between, roll

_SHARE_BYTES = 33


@dataclass(frozen=True)
class Member:
    """A client at its place in the federation.

    Parameters
    ----------
    node
        Its node id.
    protocol
        The public parameters, from the client's own configuration.
    identity
        For ``malicious_server``; ``None`` otherwise.
    """

    node: int
    protocol: Protocol
    identity: Identity | None = None

    def advertise(self, known: Secrets, session: bytes, server_round: int) -> tuple[Secrets, Peer]:
        """Begin an execution with fresh keys.

        Raises
        ------
        ProtocolError
            If the round is not later than the last one (the message was replayed), or the
            session is not of 16 bytes.
        """
        if len(session) != SESSION_BYTES:
            raise ProtocolError(f"a session of {len(session)} bytes: expected {SESSION_BYTES}")
        if server_round <= known.server_round:
            raise ProtocolError(
                f"round {server_round}: expected a later one than {known.server_round} (replayed?)"
            )
        mask_key, share_key = keys.new_private(), keys.new_private()
        fresh = Secrets(session, server_round, "keys", mask_key, share_key, os.urandom(32))
        mine = Peer(self.node, 0, keys.public_of(mask_key), keys.public_of(share_key))
        if self.identity:
            signature = keys.sign(self.identity.signing_key, _advertised(fresh.context, mine))
            mine = replace(mine, identity=self.identity.public, signature=signature)
        return fresh, mine

    def share(
        self, known: Secrets, session: bytes, peers: Sequence[Peer]
    ) -> tuple[Secrets, dict[int, bytes], bytes]:
        """Share the two secrets with the neighbours.

        Returns
        -------
        Secrets, dict, bytes
            What to remember; for each neighbour the sealed shares of this client's own mask and
            key; and the SHA-256 of the seed of its own mask, by which a wrong share is noticed.

        Raises
        ------
        ProtocolError
            If the list of neighbours is not one that an honest server would send.
        """
        self._expect_stage(known, session, "keys")
        peers = sorted(peers, key=lambda peer: peer.node)
        self._check_peers(known, peers)
        needed, points = self.protocol.shares_needed, [peer.point for peer in peers]
        of_seed = shamir.split(known.own_seed, needed, points)
        of_key = shamir.split(known.mask_key, needed, points)
        share_keys, purpose = [peer.share_key for peer in peers], known.context + b"|share"
        channel_keys = keys.agree_all(known.share_key, share_keys, purpose)
        sealed = {}
        for peer, key in zip(peers, channel_keys, strict=True):
            ends = between(known.context, "share", self.node, peer.node)
            sealed[peer.node] = keys.seal(key, of_seed[peer.point] + of_key[peer.point], ends)
        after = replace(
            known,
            stage="shares",
            peers=[peer.node for peer in peers],
            peer_mask_keys=[peer.mask_key for peer in peers],
            channel_keys=channel_keys,
            peer_identities=[peer.identity for peer in peers if peer.identity],
        )
        return after, sealed, hashlib.sha256(known.own_seed).digest()

    def receive(self, known: Secrets, session: bytes, sealed: Mapping[int, bytes]) -> Secrets:
        """Take in the neighbours' shares; those who sent some are the ones to mask with.

        Raises
        ------
        ProtocolError
            For shares that do not authenticate or come from a stranger, or too few of them.
        """
        self._expect_stage(known, session, "shares")
        if strangers := set(sealed) - set(known.peers):
            raise ProtocolError(f"shares from node {min(strangers)}: not a neighbour")
        self._expect_enough(len(sealed), "neighbours shared their secrets")
        channel_keys = dict(zip(known.peers, known.channel_keys, strict=True))
        active, own, of_keys = sorted(sealed), [], []
        for node in active:
            ends = between(known.context, "share", node, self.node)
            try:
                plain = keys.unseal(channel_keys[node], sealed[node], ends)
            except ProtocolError as error:
                raise ProtocolError(f"shares from node {node}: {error}") from None
            if len(plain) != 2 * _SHARE_BYTES:
                raise ProtocolError(f"shares from node {node}: {len(plain)} bytes, expected 66")
            own.append(plain[:_SHARE_BYTES])
            of_keys.append(plain[_SHARE_BYTES:])
        return replace(known, stage="masked", active=active, own_shares=own, key_shares=of_keys)

    def mask(self, known: Secrets, words: Words, model: bytes) -> None:
        """Add all masks to words, in place.

        ``model`` is the fingerprint of what the server asked, the global model first of all:
        masks of neighbours who were sent different ones do not cancel (Pasquini et al. 2022 need
        them to).
        """
        add_mask(words, known.own_seed, +1)
        mask_keys = dict(zip(known.peers, known.peer_mask_keys, strict=True))
        active = [mask_keys[node] for node in known.active]
        seeds = pair_seeds(known.mask_key, active, known.context, model)
        for node, seed in zip(known.active, seeds, strict=True):
            add_mask(words, seed, +1 if self.node < node else -1)

    def vouch(
        self, known: Secrets, session: bytes, survivors: Sequence[int]
    ) -> tuple[Secrets, bytes]:
        """Sign the list of survivors that the server named; the first list is the only one.

        Raises
        ------
        ProtocolError
            If a second list is to be signed, or the list cannot be true.
        """
        self._expect_stage(known, session, "masked")
        if self.identity is None:
            raise ProtocolError("asked to sign without malicious_server=true")
        self._check_survivors(known, survivors)
        signature = keys.sign(self.identity.signing_key, roll(known.context, survivors))
        return replace(known, stage="vouched", survivors=sorted(survivors)), signature

    def unmask(
        self,
        known: Secrets,
        session: bytes,
        survivors: Sequence[int],
        signatures: Mapping[bytes, bytes],
    ) -> tuple[Secrets, dict[int, bytes], dict[int, bytes]]:
        """Give the shares of the survivors' own masks, and of the lost ones' keys.

        ``signatures`` maps identities to signatures of the same list of survivors; empty unless
        ``malicious_server`` is set.

        Returns
        -------
        Secrets, dict, dict
            What to remember (nothing but the round); shares by node of neighbours that survived,
            and of those that were lost after they had shared.

        Raises
        ------
        ProtocolError
            If too few survived, or fewer than the threshold vouch for the same list.
        """
        self._expect_stage(known, session, "vouched" if self.identity else "masked")
        self._check_survivors(known, survivors)
        if self.identity:
            self._check_vouched(known, survivors, signatures)
        alive = set(survivors)
        shared = list(zip(known.active, known.own_shares, known.key_shares, strict=True))
        own = {node: share for node, share, _ in shared if node in alive}
        lost = {node: share for node, _, share in shared if node not in alive}
        return Secrets(server_round=known.server_round), own, lost

    def _expect_stage(self, known: Secrets, session: bytes, stage: str) -> None:
        if session != known.session:
            raise ProtocolError("a message of another execution (replayed?)")
        if stage != known.stage:
            raise ProtocolError(
                f"expected after stage {stage!r}, this client is at {known.stage!r}"
            )

    def _expect_enough(self, found: int, what: str) -> None:
        needed = self.protocol.shares_needed
        if found < needed:
            raise ProtocolError(f"{found} {what}: expected at least threshold={needed}")

    def _check_peers(self, known: Secrets, peers: Sequence[Peer]) -> None:
        self._expect_enough(len(peers), "neighbours")
        if len(peers) > self.protocol.degree:
            raise ProtocolError(f"{len(peers)} neighbours: expected at most {self.protocol.degree}")
        for name in ("node", "point", "mask_key", "share_key"):
            if len({getattr(peer, name) for peer in peers}) < len(peers):
                raise ProtocolError(f"two neighbours have the same {name}")
        own = {keys.public_of(known.mask_key), keys.public_of(known.share_key)}
        for peer in peers:
            if peer.node == self.node or own & {peer.mask_key, peer.share_key}:
                raise ProtocolError("this client is named as its own neighbour")
            if self.identity:
                self._check_signed(known, peer)
        if self.identity and len({p.identity for p in peers} | {self.identity.public}) <= len(
            peers
        ):
            raise ProtocolError("two neighbours have the same identity")

    def _check_signed(self, known: Secrets, peer: Peer) -> None:
        assert self.identity is not None
        if peer.identity not in self.identity.known:
            raise ProtocolError(f"node {peer.node}: its identity is not registered")
        keys.verify(peer.identity, peer.signature, _advertised(known.context, peer))

    def _check_survivors(self, known: Secrets, survivors: Sequence[int]) -> None:
        alive = set(survivors)
        if len(alive) < len(survivors) or self.node not in alive:
            raise ProtocolError("a list of survivors with repetitions, or without this client")
        if known.survivors and known.survivors != sorted(survivors):
            raise ProtocolError("another list of survivors than the one signed before")
        if late := alive & (set(known.peers) - set(known.active)):
            raise ProtocolError(f"node {min(late)} is said to survive, but never shared")
        self._expect_enough(len(alive & set(known.active)), "neighbours survived")
        least = self.protocol.fewest(0)
        found = len(alive & {self.node, *known.active})
        if self.protocol.degree == self.protocol.cohort - 1 and found < least:
            raise ProtocolError(f"{found} clients survived: expected at least {least}")

    def _check_vouched(
        self, known: Secrets, survivors: Sequence[int], signatures: Mapping[bytes, bytes]
    ) -> None:
        assert self.identity is not None
        statement = roll(known.context, survivors)
        vouching = set(signatures) & set(known.peer_identities)
        for identity in vouching:
            keys.verify(identity, signatures[identity], statement)
        self._expect_enough(len(vouching), "neighbours vouch for the survivors")


def pair_seeds(
    private: bytes, publics: Sequence[bytes], context: bytes, model: bytes
) -> list[bytes]:
    """Return the seeds of a client's masks with others who were sent the same model."""
    return keys.agree_all(private, publics, context + b"|mask|" + model)


def _advertised(context: bytes, peer: Peer) -> bytes:
    return b"|".join(
        (context, b"keys", peer.node.to_bytes(8, "big"), peer.mask_key, peer.share_key)
    )
