"""Homomorphic encryption, the client's side: every update leaves encrypted, only sums come back.

J. H. Cheon, A. Kim, M. Kim, Y. Song, "Homomorphic Encryption for Arithmetic of Approximate
Numbers", ASIACRYPT 2017. The cipher itself is :mod:`fedmia.secagg.ckks`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from flwr.app import ConfigRecord, Context, Message

from clients.defenses.hiding import (
    Handler,
    asks_to_train,
    contribution,
    discreet,
    expect_later,
    expect_round,
    hidden,
)
from fedmia.secagg.ckks import Ckks
from fedmia.secagg.cohort import Cohort
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.shared_key import SharedKey, name_of
from fedmia.secagg.wire import DECRYPT, RECORD, Told, answer

_STATE = "homomorphic"


@dataclass(frozen=True)
class Homomorphic:
    """Encrypts what a ``train`` message is answered with, and decrypts one sum a round.

    To be the outermost mod: what another would change outside of it is encrypted already.

    Parameters
    ----------
    protocol
        The public parameters; the same as the server's.
    keys
        Where the secret key is from that all clients share.
    allow_evaluation
        Whether to answer ``evaluate`` messages, in the open.
    """

    protocol: Cohort
    keys: SharedKey = field(default_factory=SharedKey)
    allow_evaluation: bool = False
    needs_strategy: ClassVar = "homomorphic"

    @cached_property
    def cipher(self) -> Ckks:
        """How words are encrypted."""
        return Ckks(self.protocol.codec)

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """What answers the ``query`` messages of the protocol, by action."""
        return {DECRYPT: self._decrypt}

    def __call__(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Encrypt the answer to a ``train`` message; pass on what may be answered in the open.

        Raises
        ------
        ProtocolError
            If the message asks for anything else, was replayed or names another round; if training
            failed, or the update does not fit the stated range.
        """
        if not asks_to_train(message, self.handlers, self.allow_evaluation):
            return call_next(message, context)
        sent, key = Told(message), self.keys.of(context.node_config)
        server_round = sent.one("round", int)
        expect_round(message, server_round)
        self._admit(context, server_round, sent.one("session", bytes))
        del message.content[RECORD]
        own = contribution(message, context, call_next, self.protocol.max_weight)
        with discreet("the update cannot be encoded"):
            words = self.protocol.codec.encode(own.delta, own.metrics, own.weight)
            encrypted = self.cipher.encrypt(key, words)
        return hidden(message, encrypted, metrics=[*own.metrics], key=name_of(key))

    def _admit(self, context: Context, server_round: int, session: bytes) -> None:
        last = context.state.config_records.get(_STATE)
        expect_later(server_round, int(str(last["round"])) if last else 0)
        context.state[_STATE] = ConfigRecord({"round": server_round, "session": session})

    def _decrypt(self, message: Message, context: Context) -> Message:
        """Decrypt the sum of the round that this client took part in; one, and no second."""
        sent, last = Told(message), context.state.config_records.get(_STATE)
        if last is None or not last["session"] or sent.one("session", bytes) != last["session"]:
            raise ProtocolError("a sum of another round, or a second one of this (replayed?)")
        context.state[_STATE] = ConfigRecord({"round": last["round"], "session": b""})
        key = self.keys.of(context.node_config)
        words = self.cipher.decrypt(key, sent.one("ciphertext", bytes))
        return answer(message, sum=words.tobytes())
