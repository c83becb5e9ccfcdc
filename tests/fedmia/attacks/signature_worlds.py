"""Signals made up for attacks that learn from auxiliary records and shadow federations."""

from types import SimpleNamespace

import numpy as np

from fedmia.attacks.base import KNOWLEDGE, Knowledge, View
from fedmia.knowledge import ShadowFederation
from fedmia.records import Examples
from fedmia.vantages import Server


class World:
    """Signals of n records under K clients in T rounds; ``leak`` moves the target's members.

    ``owner`` (n,) is the client that holds a record, −1 for nobody. Records differ in difficulty.
    """

    def __init__(self, owner, seed, leak=1.5, clients=4, rounds=6, auxiliary=None):
        rng, owner = np.random.default_rng(seed), np.asarray(owner)
        shape = (rounds, clients, len(owner))
        difficulty = rng.normal(size=len(owner))
        held = owner == np.arange(clients)[:, None]
        effect = rng.normal(size=shape) + leak * held
        self.nodes = tuple(range(100, 100 + clients))
        self.rounds = tuple(range(1, rounds + 1))
        self.present = np.ones((rounds, clients), dtype=bool)
        self.logit_gap_global = difficulty + 0.1 * rng.normal(size=(rounds, len(owner)))
        self.grad_norm = np.exp(-self.logit_gap_global)
        self.cosine = 0.1 * effect
        self.inner = self.cosine * self.grad_norm[:, None]
        self.logit_gap_local = (
            self.logit_gap_global[:, None] + 0.5 * effect + 0.2 * rng.normal(size=shape)
        )
        self.loss_local = np.logaddexp(0, -self.logit_gap_local)
        self.loss_global = np.logaddexp(0, -self.logit_gap_global)
        self.owner, self.auxiliary = owner, auxiliary

    def of(self, records):
        return self.auxiliary

    def picked(self, index):
        """Return the signals of some records in another order."""
        some = World.__new__(World)
        shared = ("nodes", "rounds", "present", "auxiliary")
        rest = {k: v[..., index] for k, v in vars(self).items() if k not in shared}
        some.__dict__ = {**vars(self), **rest}
        return some

    def opposed(self, index):
        """Return the same signals with some records as untypical, but fitted worse."""
        other = self.picked(np.arange(len(self.owner)))
        for name, sign in (("cosine", -1), ("inner", -1)):
            getattr(other, name)[..., index] *= sign
        change = other.logit_gap_local - other.logit_gap_global[:, None]
        change[..., index] *= -1
        other.logit_gap_local = other.logit_gap_global[:, None] + change
        other.loss_local = np.logaddexp(0, -other.logit_gap_local)
        return other


class MadeShadows:
    """Shadow federations whose signals are made up as well."""

    def __init__(self, federations):
        self.made = federations

    def transcripts(self):
        return self.made


def owners(each=25, clients=4, others=200):
    return np.repeat([*range(clients), -1], [each] * clients + [others])


def records(n):
    return Examples(np.arange(n, dtype=np.float32)[:, None], np.zeros(n, np.int64))


def view_of(world, shows=Server.shows, vantage="server"):
    shown = frozenset(shows) - KNOWLEDGE
    return View(SimpleNamespace(vantage=vantage, shows=shown, hides_updates=""), world)


def world(seed=0, leak=1.5, **settings):
    auxiliary = World(np.full(150, -1), seed + 1000, **settings)
    return World(owners(), seed, leak, auxiliary=auxiliary, **settings)


def knowledge(leak=1.5, federations=2, **settings):
    made = []
    for seed in range(500, 500 + federations):
        shadow = world(seed, leak)
        made.append(
            ShadowFederation(
                view_of(shadow), records(len(shadow.owner)), shadow.nodes, shadow.owner
            )
        )
    return Knowledge(records(150), 2, shadows=MadeShadows(made), **settings)


def ask(attack, seen, target=100, knows=None):
    knows = knowledge() if knows is None else knows
    return attack(view_of(seen), target, records(len(seen.owner)), knows)


def rank_auc(scores, member):
    """Return the share of pairs in which the member scores higher, ties half."""
    above = scores[member][:, None] - scores[~member]
    return float(np.mean((above > 0) + 0.5 * (above == 0)))
