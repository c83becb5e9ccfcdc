"""Secure aggregation, the server's side: it learns the sum of the updates and none of them.

J. H. Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020;
on the complete graph it is K. A. Bonawitz et al., "Practical Secure Aggregation for
Privacy-Preserving Machine Learning", CCS 2017.
"""

import logging
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedmia.privacy.claim import EVERYBODY, Claim, Setting, large_delta
from fedmia.privacy.distributed import account_of
from fedmia.secagg.codec import Mean, Words
from fedmia.secagg.combiner import Execution, Shares, add_up, check_keys, enough
from fedmia.secagg.keys import verify
from fedmia.secagg.party import Peer
from fedmia.secagg.protocol import Protocol, roll
from fedmia.secagg.wire import CONSISTENCY, KEYS, SHARES, UNMASK, question, table
from strategies.sums_only import Begun, SumsOnly, dropping, readdressed, usable

log = logging.getLogger(__name__)


class SecAggPlus(SumsOnly):
    """Sum updates under masks that cancel.

    A round in which too few clients stay to the end is abandoned, and nothing is revealed.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates.
    protocol
        The public parameters, the same as the clients'.
    timeout_s
        How long to wait for the answers to a stage other than training; ``None`` waits for ever.
    """

    hides_updates = "secagg_plus"

    def __init__(self, inner: Strategy, protocol: Protocol, timeout_s: float | None = None) -> None:
        super().__init__(inner, protocol.cohort, timeout_s)
        self.protocol = protocol
        self._running: tuple[Execution, bytes] | None = None

    def summary(self) -> None:
        """Log the settings."""
        p = self.protocol
        log.info("SecAgg+: %d neighbours, threshold %d, %s", p.degree, p.shares_needed, p.codec)
        self.inner.summary()

    def claims(self, setting: Setting) -> list[Claim]:
        """Return what the noise under the mask promises; nothing without noise."""
        if not self.protocol.noise:
            return []
        statement = self.protocol.mechanism(setting.length).statement()
        delta = self.protocol.noise.delta
        return [
            Claim(
                unit="client",
                account=account_of(statement, delta),
                holds_against=EVERYBODY,
                reasons=statement.claims,
                secure=True,
                warnings=large_delta("protocol.noise.delta", delta, setting.clients, "clients"),
            )
        ]

    def begin(self, begun: Begun, messages: list[Message]) -> list[Message]:
        """Agree on keys and shares, then ask for masked updates."""
        execution = Execution(self.protocol, begun.server_round, asked=len(messages))
        session, grid = execution.session, begun.grid
        asked = {n: {"session": session, "round": begun.server_round} for n in begun.nodes}
        advertised: dict[int, Peer] = {}
        for node, sent in self.ask(grid, KEYS, asked):
            with dropping(node):
                keys = (sent.one(field, bytes) for field in Peer.KEYS)
                peer = Peer(node, 0, *keys)
                check_keys(peer)
                advertised[node] = peer
        peers = execution.admit(advertised)
        for node, sent in self.ask(grid, SHARES, {n: _roll(session, p) for n, p in peers.items()}):
            with dropping(node):
                sealed, commitment = sent.table("to", "sealed"), sent.one("commitment", bytes)
                execution.take_shares(node, sealed, commitment)
        inbound = execution.inbound()
        self._running = execution, question(messages[0])
        return [
            readdressed(message, session=session, **table("from", "sealed", shares))
            for message in messages
            if (shares := inbound.get(message.metadata.dst_node_id)) is not None
        ]

    def finish(self, begun: Begun, replies: list[Message]) -> Mean:
        """Unmask the sum."""
        assert self._running is not None
        (execution, asked), self._running = self._running, None
        answers, names = usable(replies, execution.sealed)
        length = self.protocol.length(begun.model, names)
        total: Words = np.zeros(length, self.protocol.codec.dtype)
        survivors: set[int] = set()
        for answer in answers:
            with dropping(answer.node):
                total = add_up(total, answer.words)
                survivors.add(answer.node)
        execution.settle(survivors)
        own, of_keys = self._shares(execution, begun.grid, survivors)
        execution.unmask(total, survivors, own, of_keys, asked)
        clients = len(survivors)
        return self.protocol.decode(total, begun.model, names, clients, execution.context)

    def _shares(
        self, execution: Execution, grid: Grid, survivors: set[int]
    ) -> tuple[Shares, Shares]:
        """Return the shares of the survivors' seeds, and of the keys of those who were lost."""
        session = execution.session
        near = {node: execution.near(node, survivors) for node in sorted(survivors)}
        signatures: dict[bytes, bytes] = {}
        if self.protocol.malicious_server:
            asked = {n: {"session": session, "survivors": around} for n, around in near.items()}
            for node, sent in self.ask(grid, CONSISTENCY, asked):
                with dropping(node):
                    identity = execution.members[node].identity
                    signature = sent.one("signature", bytes)
                    verify(identity, signature, roll(execution.context, near[node]))
                    signatures[identity] = signature
            needed = self.protocol.shares_needed
            enough(len(signatures) - 1, needed, "others vouch for the survivors")
        fields: dict[str, Any] = {"identities": [*signatures], "signatures": [*signatures.values()]}
        asked = {n: {"session": session, "survivors": near[n], **fields} for n in near}
        own: dict[int, dict[int, bytes]] = {}
        of_keys: dict[int, dict[int, bytes]] = {}
        for node, sent in self.ask(grid, UNMASK, asked):
            with dropping(node):
                alive, lost = sent.table("alive", "own_shares"), sent.table("lost", "key_shares")
                for owner, share in alive.items():
                    own.setdefault(owner, {})[node] = share
                for owner, share in lost.items():
                    of_keys.setdefault(owner, {})[node] = share
        return own, of_keys


def _roll(session: bytes, peers: list[Peer]) -> dict[str, Any]:
    columns = {name: [getattr(p, name) for p in peers] for name in ("node", "point", *Peer.KEYS)}
    return {"session": session, **columns}
