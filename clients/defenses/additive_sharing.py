"""Additive secret sharing, the client's side: every update leaves in shares, one a party.

D. Bogdanov, S. Laur, J. Willemson, "Sharemind: A Framework for Fast Privacy-Preserving
Computations", ESORICS 2008. The sharing itself is :mod:`fedmia.secagg.sharing`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
from fedmia.secagg.cohort import Cohort
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.protocol import context_of
from fedmia.secagg.sharing import split
from fedmia.secagg.wire import RECORD, Told, question

_LAST = "additive_sharing"


@dataclass(frozen=True)
class AdditiveSharing:
    """Splits what a ``train`` message is answered with.

    To be the outermost mod: what another would change outside of it is shared already. The
    parties' keys come with the server's first message, and no others are taken after it.

    Parameters
    ----------
    protocol
        The public parameters; the same as the server's.
    parties
        How many there have to be; the same as the server's.
    allow_evaluation
        Whether to answer ``evaluate`` messages, in the open.
    """

    protocol: Cohort
    parties: int = 2
    allow_evaluation: bool = False
    needs_strategy: ClassVar = "additive_sharing"

    def __call__(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Share the answer to a ``train`` message; pass on what may be answered in the open.

        Raises
        ------
        ProtocolError
            If the message asks for anything else, was replayed, or names other parties or another
            round; if training failed, or the update does not fit the stated range.
        """
        if not asks_to_train(message, (), self.allow_evaluation):
            return call_next(message, context)
        sent = Told(message)
        server_round, keys = sent.one("round", int), sent.many("parties", bytes)
        expect_round(message, server_round)
        self._admit(context, server_round, keys)
        execution = context_of(sent.one("session", bytes), server_round) + question(message)
        del message.content[RECORD]
        own = contribution(message, context, call_next, self.protocol.max_weight)
        with discreet("the update cannot be encoded"):
            words = self.protocol.codec.encode(own.delta, own.metrics, own.weight)
        sealed = split(words, keys, execution, context.node_id)
        return hidden(
            message, words, metrics=[*own.metrics], key=sealed.key, sealed=[*sealed.messages]
        )

    def _admit(self, context: Context, server_round: int, keys: Sequence[bytes]) -> None:
        """Note the round and the parties; refuse an old round, or parties other than before."""
        if len(set(keys)) != self.parties or len(keys) != self.parties:
            raise ProtocolError(f"{len(set(keys))} parties: expected {self.parties}, each once")
        last = context.state.config_records.get(_LAST)
        if last is not None:
            expect_later(server_round, int(str(last["round"])))
            if last["parties"] != [*keys]:
                raise ProtocolError("other parties than in the rounds before")
        context.state[_LAST] = ConfigRecord({"round": server_round, "parties": [*keys]})
