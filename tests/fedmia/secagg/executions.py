"""All parties of the protocol in one process, without any messages between them."""

import numpy as np

from fedmia.secagg.combiner import Execution, add_up
from fedmia.secagg.identities import Identities
from fedmia.secagg.keys import new_private, public_of
from fedmia.secagg.member import Member
from fedmia.secagg.party import Peer, Secrets
from fedmia.secagg.protocol import Protocol

KEYS, SHARES, MASK, VOUCH, UNMASK, STAYS = range(6)
"""The stage at which a client is lost: it answers all those before."""

MODEL = b"m" * 32


class Crew:
    """The server and its clients, driven stage by stage.

    ``models`` holds what a client was sent where that is not the same for all.
    """

    def __init__(self, protocol, nodes, lost=None, server_round=1, known=None, models=None):
        signed = protocol.malicious_server
        registry = Identities(clients=len(nodes), seed=3)
        self.protocol, self.nodes, self.lost = protocol, list(nodes), lost or {}
        self.members = {
            node: Member(node, protocol, registry.of({"partition-id": k}) if signed else None)
            for k, node in enumerate(nodes)
        }
        self.known = dict(known or {node: Secrets() for node in nodes})
        self.models = models or {}
        self.execution = Execution(protocol, server_round, asked=len(self.nodes))
        self.signatures = {}

    @property
    def session(self):
        return self.execution.session

    def there(self, stage, nodes):
        return [n for n in nodes if self.lost.get(n, STAYS) > stage]

    def advertise(self):
        advertised = {}
        for node in self.there(KEYS, self.nodes):
            self.known[node], advertised[node] = self.members[node].advertise(
                self.known[node], self.session, self.execution.server_round
            )
        return advertised

    def share(self, peers):
        for node in self.there(SHARES, peers):
            self.known[node], sealed, commitment = self.members[node].share(
                self.known[node], self.session, peers[node]
            )
            self.execution.take_shares(node, sealed, commitment)

    def receive(self, inbound):
        for node in self.there(MASK, inbound):
            self.known[node] = self.members[node].receive(
                self.known[node], self.session, inbound[node]
            )

    def begin(self):
        self.share(self.execution.admit(self.advertise()))
        self.receive(self.execution.inbound())
        return set(self.there(MASK, self.execution.sealed))

    def masked(self, node, words):
        words = words.copy()
        self.members[node].mask(self.known[node], words, self.models.get(node, MODEL))
        return words

    def vouch(self, survivors):
        for node in self.there(VOUCH, sorted(survivors)):
            member = self.members[node]
            near = self.execution.near(node, survivors)
            self.known[node], signature = member.vouch(self.known[node], self.session, near)
            self.signatures[member.identity.public] = signature

    def unmasked(self, survivors):
        own, of_keys = {}, {}
        for node in self.there(UNMASK, sorted(survivors)):
            near = self.execution.near(node, survivors)
            self.known[node], alive, lost = self.members[node].unmask(
                self.known[node], self.session, near, self.signatures
            )
            for given, kept in ((alive, own), (lost, of_keys)):
                for owner, share in given.items():
                    kept.setdefault(owner, {})[node] = share
        return own, of_keys

    def total(self, words, survivors):
        total = None
        for node in sorted(survivors):
            total = add_up(total, self.masked(node, words[node]))
        return total

    def run(self, words):
        """Return the sum that the server gets, and whose it is."""
        survivors = self.begin()
        self.execution.settle(survivors)
        total = self.total(words, survivors)
        if self.protocol.malicious_server:
            self.vouch(survivors)
        own, of_keys = self.unmasked(survivors)
        self.execution.unmask(total, survivors, own, of_keys, MODEL)
        return total, survivors


def words_of(nodes, dtype=np.uint32, length=7, seed=0):
    rng = np.random.default_rng(seed)
    high = int(np.iinfo(dtype).max)
    return {n: rng.integers(0, high, length, dtype, endpoint=True) for n in nodes}


def plain_sum(words, nodes):
    total = np.zeros_like(next(iter(words.values())))
    for node in nodes:
        total += words[node]
    return total


def stranger(node=99, point=99):
    return Peer(node, point, public_of(new_private()), public_of(new_private()))


def small(**settings):
    return Protocol(**{"cohort": 5, **settings})
