"""Secure aggregation, the client's side: every update leaves under masks that cancel in the sum.

J. H. Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020;
on the complete graph it is K. A. Bonawitz et al., "Practical Secure Aggregation for
Privacy-Preserving Machine Learning", CCS 2017. The protocol itself is
:mod:`fedmia.secagg.member`; here it meets Flower's messages.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from flwr.app import ConfigRecord, Context, Message

from clients.defenses.hiding import (
    Handler,
    asks_to_train,
    contribution,
    discreet,
    expect_round,
    hidden,
)
from fedmia.secagg.identities import Identities
from fedmia.secagg.member import Member
from fedmia.secagg.party import Peer, Secrets
from fedmia.secagg.protocol import Protocol
from fedmia.secagg.wire import (
    CONSISTENCY,
    KEYS,
    RECORD,
    SHARES,
    UNMASK,
    Told,
    answer,
    question,
    table,
)


@dataclass(frozen=True)
class SecAggPlus:
    """Answers the stages of the protocol, and masks what a ``train`` message is answered with.

    To be the outermost mod: what another would change outside of it is masked already. Secrets
    live in ``context.state`` and last one round.

    Parameters
    ----------
    protocol
        The public parameters; the same as the server's, or the round comes to nothing.
    identities
        Who may take part, with ``protocol.malicious_server``.
    allow_evaluation
        Whether to answer ``evaluate`` messages, in the open.
    """

    needs_strategy: ClassVar = "secagg_plus"

    protocol: Protocol
    identities: Identities = field(default_factory=Identities)
    allow_evaluation: bool = False

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """What answers the ``query`` messages of the protocol, by action."""
        return {
            KEYS: self._keys,
            SHARES: self._shares,
            CONSISTENCY: self._vouch,
            UNMASK: self._unmask,
        }

    def __call__(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Mask the answer to a ``train`` message; pass on what may be answered in the open.

        Raises
        ------
        ProtocolError
            If the message asks for anything else, is not this client's turn in the protocol or
            names another round; if training failed, or the update does not fit the stated range.
        """
        if not asks_to_train(message, self.handlers, self.allow_evaluation):
            return call_next(message, context)
        member, sent = self._member(context), Told(message)
        known = member.receive(
            _recall(context), sent.one("session", bytes), sent.table("from", "sealed")
        )
        expect_round(message, known.server_round)
        _remember(context, known)
        del message.content[RECORD]
        asked = question(message)
        own = contribution(message, context, call_next, self.protocol.max_weight)
        with discreet("the update cannot be encoded"):
            words, names = self.protocol.encode(own.delta, own.metrics, own.weight, known.context)
        member.mask(known, words, asked)
        return hidden(message, words, metrics=names)

    def _member(self, context: Context) -> Member:
        signs = self.protocol.malicious_server
        identity = self.identities.of(context.node_config) if signs else None
        return Member(context.node_id, self.protocol, identity)

    def _keys(self, message: Message, context: Context) -> Message:
        sent = Told(message)
        known, mine = self._member(context).advertise(
            _recall(context), sent.one("session", bytes), sent.one("round", int)
        )
        _remember(context, known)
        fields = {name: getattr(mine, name) for name in Peer.KEYS}
        return answer(message, **fields)

    def _shares(self, message: Message, context: Context) -> Message:
        sent = Told(message)
        ids = zip(sent.many("node", int), sent.many("point", int), strict=True)
        blobs = zip(*(sent.many(name, bytes) for name in Peer.KEYS), strict=True)
        peers = [Peer(*numbers, *given) for numbers, given in zip(ids, blobs, strict=True)]
        known, sealed, commitment = self._member(context).share(
            _recall(context), sent.one("session", bytes), peers
        )
        _remember(context, known)
        return answer(message, commitment=commitment, **table("to", "sealed", sealed))

    def _vouch(self, message: Message, context: Context) -> Message:
        sent = Told(message)
        known, signature = self._member(context).vouch(
            _recall(context), sent.one("session", bytes), sent.many("survivors", int)
        )
        _remember(context, known)
        return answer(message, signature=signature)

    def _unmask(self, message: Message, context: Context) -> Message:
        sent = Told(message)
        identities, signatures = (sent.many(name, bytes) for name in ("identities", "signatures"))
        known, own, lost = self._member(context).unmask(
            _recall(context),
            sent.one("session", bytes),
            sent.many("survivors", int),
            dict(zip(identities, signatures, strict=True)),
        )
        _remember(context, known)
        fields = table("alive", "own_shares", own) | table("lost", "key_shares", lost)
        return answer(message, **fields)


def _recall(context: Context) -> Secrets:
    record: dict[str, Any] = dict(context.state.config_records.get(RECORD, {}))
    return Secrets(**record)


def _remember(context: Context, known: Secrets) -> None:
    context.state[RECORD] = ConfigRecord(known.record())
