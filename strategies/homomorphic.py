"""Homomorphic encryption, the server's side: it adds up ciphertexts and has the sum decrypted.

J. H. Cheon, A. Kim, M. Kim, Y. Song, "Homomorphic Encryption for Arithmetic of Approximate
Numbers", ASIACRYPT 2017.
"""

import logging
import os
from collections import Counter

import numpy as np
from flwr.app import Message
from flwr.serverapp.strategy import Strategy

from fedmia.errors import expect
from fedmia.secagg.ckks import Blocks, Ckks, pack, require
from fedmia.secagg.codec import Mean, Words
from fedmia.secagg.cohort import Cohort
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.wire import DECRYPT
from strategies.sums_only import Answer, Begun, SumsOnly, dropping, readdressed, usable

log = logging.getLogger(__name__)


class Homomorphic(SumsOnly):
    """Sum updates under encryption with a key that the clients share.

    The server holds parameters and no key, and learns what clients decrypt for it: the sum. That
    it is a sum they cannot see. A server that deviates, or colludes with a single client, reads
    every update. An encrypted update has eight times the bytes of its model in float32; the sum
    is exact (:class:`fedmia.secagg.ckks.Ckks`), so that the mean is as far off as the codec's.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates.
    protocol
        The public parameters, the same as the clients'.
    decryptors
        How many clients decrypt the sum; the round is abandoned if they disagree.
    timeout_s
        How long to wait for a decryption; ``None`` waits for ever.
    """

    hides_updates = "homomorphic"
    uniform_words = False  # a ciphertext has headers, and 60 bits in every 64

    def __init__(
        self,
        inner: Strategy,
        protocol: Cohort,
        decryptors: int = 1,
        timeout_s: float | None = None,
    ) -> None:
        require()
        super().__init__(inner, protocol.cohort, timeout_s)
        fewest = protocol.min_clients
        allowed = f"in 1..{fewest}, at most min_clients"
        expect(1 <= decryptors <= fewest, "decryptors", decryptors, allowed)
        self.protocol, self.decryptors = protocol, decryptors
        self.cipher = Ckks(protocol.codec)
        self._session = b""

    def summary(self) -> None:
        """Log the settings."""
        log.info("CKKS: scale %g, %s", self.cipher.scale, self.protocol.codec)
        self.inner.summary()

    def begin(self, begun: Begun, messages: list[Message]) -> list[Message]:
        """Ask for encrypted updates; there is nothing to agree on before."""
        self._session = os.urandom(16)
        fields = {"session": self._session, "round": begun.server_round}
        return [readdressed(message, **fields) for message in messages]

    def finish(self, begun: Begun, replies: list[Message]) -> Mean:
        """Add the updates up and have their sum decrypted."""
        answers, names = usable(replies, begun.nodes)
        length = self.protocol.length(begun.model, names)
        total: Blocks | None = None
        survivors: list[int] = []
        for answer in _with_one_key(answers):
            with dropping(answer.node):
                total = self.cipher.add(total, answer.words, length)
                survivors.append(answer.node)
        self.protocol.expect_enough(len(survivors))
        assert total is not None
        words = self._decrypted(begun, pack(total).tobytes(), survivors)
        if len(words) < length:
            raise ProtocolError(f"a decrypted sum of {len(words)} words: expected {length}")
        return self.protocol.decode(words[:length], begun.model, names, len(survivors))

    def _decrypted(self, begun: Begun, ciphertext: bytes, survivors: list[int]) -> Words:
        """Return what as many clients as are wanted agree on; each round begins with others."""
        asked = {"session": self._session, "ciphertext": ciphertext}
        first = begun.server_round % len(survivors)
        turn = survivors[first:] + survivors[:first]
        found: list[bytes] = []
        while turn and (missing := self.decryptors - len(found)):
            now, turn = turn[:missing], turn[missing:]
            for node, told in self.ask(begun.grid, DECRYPT, dict.fromkeys(now, asked)):
                with dropping(node):
                    found.append(told.one("sum", bytes))
        if len(found) < self.decryptors:
            wanted = self.decryptors
            raise ProtocolError(f"{len(found)} clients decrypted: expected decryptors={wanted}")
        if len(set(found)) > 1 or len(found[0]) % self.protocol.codec.dtype.itemsize:
            raise ProtocolError("the clients who decrypt do not agree, or sent no words")
        words: Words = np.frombuffer(found[0], self.protocol.codec.dtype)
        return words


def _with_one_key(answers: list[Answer]) -> list[Answer]:
    """Leave those out whose key is not the one that most clients have."""
    named: list[tuple[Answer, bytes]] = []
    for answer in answers:
        with dropping(answer.node):
            named.append((answer, answer.told.one("key", bytes)))
    usual = Counter(name for _, name in named).most_common(1)
    kept = []
    for answer, name in named:
        with dropping(answer.node):
            if name != usual[0][0]:
                raise ProtocolError("its secret key is not the one that most clients have")
            kept.append(answer)
    return kept
