"""Additive secret sharing, the server's side: it relays shares to parties and adds up their sums.

D. Bogdanov, S. Laur, J. Willemson, "Sharemind: A Framework for Fast Privacy-Preserving
Computations", ESORICS 2008.
"""

import logging
import os

import numpy as np
from flwr.app import Message
from flwr.serverapp.strategy import Strategy

from fedmia.errors import expect
from fedmia.secagg.codec import Mean, Words
from fedmia.secagg.cohort import Cohort
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.protocol import context_of
from fedmia.secagg.sharing import Party, Sealed
from fedmia.secagg.wire import question
from strategies.sums_only import Answer, Begun, SumsOnly, dropping, readdressed, usable

log = logging.getLogger(__name__)


class AdditiveSharing(SumsOnly):
    """Sum updates that are split between parties who do not collude.

    The parties are objects in this process, each with a key and a view of its own: what is
    simulated is what each would see, not that somebody else runs them. A client that does not
    answer is not in the sum, and nothing has to be recovered.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates.
    protocol
        The public parameters, the same as the clients'.
    parties
        How many there are; an update is hidden as long as one of them keeps its share.
    """

    hides_updates = "additive_sharing"

    def __init__(self, inner: Strategy, protocol: Cohort, parties: int = 2) -> None:
        super().__init__(inner, protocol.cohort)
        expect(parties >= 2, "parties", parties, "at least 2, none of which can read a share alone")
        self.protocol = protocol
        self.parties = tuple(Party(number) for number in range(parties))

    def summary(self) -> None:
        """Log the settings."""
        log.info("Additive sharing: %d parties, %s", len(self.parties), self.protocol.codec)
        self.inner.summary()

    def begin(self, begun: Begun, messages: list[Message]) -> list[Message]:
        """Ask for shares; there is nothing to agree on before."""
        session = os.urandom(16)
        context = context_of(session, begun.server_round) + question(messages[0])
        for party in self.parties:
            party.begin(begun.server_round, context)
        fields = {
            "session": session,
            "round": begun.server_round,
            "parties": [party.key for party in self.parties],
        }
        return [readdressed(message, **fields) for message in messages]

    def finish(self, begun: Begun, replies: list[Message]) -> Mean:
        """Hand the shares on, and add up what the parties publish."""
        answers, names = usable(replies, begun.nodes)
        length, dtype = self.protocol.length(begun.model, names), self.protocol.codec.dtype
        survivors: set[int] = set()
        for answer in answers:
            with dropping(answer.node):
                if answer.words.shape != (length,) or answer.words.dtype != dtype:
                    found = f"{answer.words.shape} words of {answer.words.dtype}"
                    raise ProtocolError(f"{found}: expected {length} of {dtype}")
                self._relay(answer)
                survivors.add(answer.node)
        self.protocol.expect_enough(len(survivors))
        total: Words = np.zeros(length, dtype)
        for party in self.parties:
            published = party.publish(survivors, self.protocol.min_clients, length, dtype)
            np.add(total, published, out=total)
        return self.protocol.decode(total, begun.model, names, len(survivors))

    def _relay(self, answer: Answer) -> None:
        told = answer.told
        sealed = Sealed(told.one("key", bytes), tuple(told.many("sealed", bytes)))
        if len(sealed.messages) != len(self.parties):
            found, wanted = len(sealed.messages), len(self.parties)
            raise ProtocolError(f"{found} sealed shares: expected {wanted}, one a party")
        for party in self.parties:
            try:
                party.take(answer.node, sealed, answer.words)
            except ProtocolError as error:
                raise ProtocolError(f"party {party.number}: {error}") from None
