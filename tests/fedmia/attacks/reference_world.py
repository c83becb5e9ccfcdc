"""A made-up federation in which the logit gap of a record is known in closed form.

Under any model it is the record's ease, plus ``leak`` if the model was trained on the record, plus
noise of that model and record. Ease is the first feature, the second is the record's number.
"""

from types import SimpleNamespace

import numpy as np

from fedmia.attacks.base import Knowledge, View
from fedmia.metrics import auc
from fedmia.records import Capability, Examples, Observation, Update

CLASSES, CLIENTS, EACH, OUTSIDE, AUXILIARY = 3, 6, 30, 300, 300
ROUNDS = 5
NODES = tuple(100 + k for k in range(CLIENTS))
SHOWN = frozenset(
    {
        Capability.GLOBAL_MODEL,
        Capability.MANY_ROUNDS,
        Capability.CLIENT_UPDATES,
        Capability.MANY_CLIENTS,
    }
)


class World:
    """Records, who holds them, and what every model says of them."""

    def __init__(self, leak=2.0, spread=3.0, models=16, seed=0, present=None):
        rng = np.random.default_rng(seed)
        n = CLIENTS * EACH + OUTSIDE + AUXILIARY
        ease = rng.normal(0, spread, n)
        self.leak, self.models = leak, models
        self.records = Examples(
            np.stack([ease, np.arange(n)], axis=1).astype(np.float32),
            rng.integers(0, CLASSES, n),
        )
        self.owner = np.repeat([*range(CLIENTS), -1], [EACH] * CLIENTS + [OUTSIDE + AUXILIARY])
        self.present = np.ones((ROUNDS, CLIENTS), bool) if present is None else np.array(present)
        self.inside = CLIENTS * EACH + OUTSIDE
        self.candidates = self.records[: self.inside]
        self.noise = {}
        self.asked = []

    def gap(self, model, records, held):
        """Return φ of records under one model, (n,)."""
        if model not in self.noise:
            rng = np.random.default_rng([7, *(ord(c) for c in model)])
            self.noise[model] = rng.normal(0, 1, len(self.records))
        ease = records.x[:, 0].astype(np.float64)
        return ease + self.leak * held + self.noise[model][number(records)]

    @property
    def view(self):
        transcript = FakeTranscript(self)
        return View(transcript, FakeSignals(self, self.candidates))

    @property
    def knowledge(self):
        return Knowledge(self.records[self.inside :], CLASSES, shadows=FakeShadows(self))

    def score(self, attack, target=NODES[0], candidates=None, knowledge=None):
        seen = self.view
        if candidates is not None:
            seen = View(seen.transcript, FakeSignals(self, candidates))
        else:
            candidates = self.candidates
        return attack(seen, target, candidates, knowledge or self.knowledge)

    def auc(self, scores, target=0):
        """Return that of the target's members against records that nobody held."""
        owner = self.owner[: self.inside]
        chosen = (owner == target) | (owner == -1) if target is not None else owner > -2
        inside = owner == target if target is not None else owner >= 0
        return auc(scores[chosen], inside[chosen])


def number(records):
    return np.rint(records.x.reshape(len(records), -1)[:, 1]).astype(int)


def logits(gap, y):
    """Return logits (..., n, classes) whose gap is as given, those of other classes unequal."""
    others = np.array([0.3, -0.2])
    others = others - np.log(np.exp(others).sum())
    z = np.empty((*gap.shape, CLASSES))
    for c in range(CLASSES):
        z[..., c] = np.where(y == c, gap, others[(c - y) % CLASSES - 1])
    return z


class FakeSignals:
    """The signals of some records; rounds, clients and the model after the last round."""

    def __init__(self, world, records):
        self.world, self.records = world, records
        self.candidates, self.others = records, {}
        self.nodes, self.present = NODES, world.present
        owner = world.owner[number(records)]
        self.logit_gap_global = np.stack(
            [world.gap(f"global {t}", records, owner >= 0) for t in range(ROUNDS + 1)]
        )
        self.logit_gap_local = np.stack(
            [
                [world.gap(f"local {t} {k}", records, owner == k) for k in range(CLIENTS)]
                for t in range(ROUNDS)
            ]
        )
        self.logit_gap_local[~self.present] = np.nan

    @property
    def loss_local(self):
        with np.errstate(invalid="ignore"):
            return np.logaddexp(0, -self.logit_gap_local)

    @property
    def loss_global(self):
        return np.logaddexp(0, -self.logit_gap_global)

    def of(self, records):
        key = records.x.tobytes()
        return self.others.setdefault(key, FakeSignals(self.world, records))

    def logits(self, t, k=None):
        gap = self.logit_gap_global[t] if k is None else self.logit_gap_local[t, k]
        return logits(gap, self.records.y)


class FakeTranscript:
    """Vantage and, of each round, who answered with how many examples."""

    vantage, shows, hides_updates = "server", SHOWN, ""

    def __init__(self, world):
        self.world = world

    def __getitem__(self, t):
        updates = tuple(
            Update(NODES[k], EACH + k, {}) for k in np.flatnonzero(self.world.present[t])
        )
        return Observation(t + 1, {"w": np.array([t])}, NODES, updates)


class FakeReferences:
    """Models each trained on half of the records numbered ``pool``, the next on the other half."""

    def __init__(self, world, name, pool):
        self.world, self.name = world, name
        rng = np.random.default_rng(len(pool))
        self.members = np.zeros((world.models, len(world.records)), bool)
        for s, row in enumerate(self.members):
            if s % 2 == 0:
                half = rng.permutation(pool)
            row[np.array_split(half, 2)[s % 2]] = True

    def __len__(self):
        return len(self.members)

    def held(self, records):
        known = self.world.records.x[number(records) % len(self.world.records)]
        return self.members[:, number(records)] & (known == records.x).all(axis=1)

    def logits(self, records):
        gaps = [
            self.world.gap(f"{self.name} {s}", records, held)
            for s, held in enumerate(self.members[:, number(records)])
        ]
        return logits(np.stack(gaps), records.y)


class FakeShadows:
    """Shadow models that follow the same law; ``world.asked`` notes what was asked for."""

    seconds = 0.0

    def __init__(self, world):
        self.world = world
        self.auxiliary = np.arange(world.inside, len(world.records))
        self.everyone = np.arange(len(world.records))

    def federations(self, online=False):
        self.world.asked.append(("federations", online))
        pool = self.everyone if online else self.auxiliary
        return FakeReferences(self.world, f"federation {online}", pool)

    def clients(self, start, size, online=False):
        self.world.asked.append(("clients", int(start["w"][0]), size, online))
        pool = self.everyone if online else self.auxiliary
        return FakeReferences(self.world, f"client {size} {online}", pool)

    def transcripts(self):
        """Return two federations of the same law, one of them with fewer rounds."""
        found = []
        for seed, rounds in ((11, ROUNDS), (12, ROUNDS - 2)):
            other = World(self.world.leak, seed=seed)
            view = other.view
            signals = view.signals
            rng = np.random.default_rng(seed)
            for name in ("logit_gap_global", "logit_gap_local"):
                noise = rng.normal(0, 1, getattr(signals, name).shape)
                setattr(signals, name, (getattr(signals, name) + noise)[:rounds])
            signals.present = signals.present[:rounds]
            found.append(
                SimpleNamespace(
                    view=view,
                    candidates=other.candidates,
                    nodes=NODES,
                    owner=other.owner[: other.inside],
                )
            )
        return found
