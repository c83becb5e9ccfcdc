"""Made-up federations in which it is known, number by number, what each signal says."""

from types import SimpleNamespace

import numpy as np

from fedmia.attacks.base import KNOWLEDGE, Knowledge, View
from fedmia.knowledge import ShadowFederation
from fedmia.records import Examples, Observation, Update
from fedmia.vantages import Server

LAYERS = ("first.weight", "second.weight", "second.bias")
SIZES = (120, 150, 30)


class Signals(SimpleNamespace):
    """Arrays by name; ``others`` are the signals of auxiliary records."""

    def of(self, records):
        arrays = [v for v in vars(self.others).values() if isinstance(v, np.ndarray)]
        assert len(records) in {array.shape[-1] for array in arrays}
        return self.others


class Transcript(list):
    """Observations at a vantage, as hashable as a real transcript."""

    vantage, shows, hides_updates = "server", Server.shows - KNOWLEDGE, ""
    __hash__ = object.__hash__

    def at(self, kind):
        self.vantage, self.shows = kind.name, kind.shows - KNOWLEDGE
        self.hides_updates = kind.hides_updates
        return self


def view(nodes=(10, 20, 30), present=None, sizes=None, kind=Server, **signals):
    """Return a view of signals by name, all clients present unless said otherwise."""
    arrays = {k: np.asarray(v, dtype=np.float64) for k, v in signals.items() if k != "others"}
    rounds = len(next(iter(arrays.values())))
    if present is None:
        present = np.ones((rounds, len(nodes)), dtype=bool)
    present = np.array(present, dtype=bool)
    sizes = sizes or [20] * len(nodes)
    seen = Transcript(
        Observation(
            t + 1,
            {"w": np.full(1, t, np.float32)},
            tuple(nodes),
            tuple(Update(k, sizes[i], {}) for i, k in enumerate(nodes) if here[i]),
        )
        for t, here in enumerate(present)
    ).at(kind)
    extra = {"others": signals["others"]} if "others" in signals else {}
    made = Signals(nodes=tuple(nodes), present=present, parameters=LAYERS, **arrays, **extra)
    made.rounds_global = tuple(range(1, rounds + 1))
    return View(seen, made)


def ask(attack, seen, target=10, records=None, knowledge=None, n=2):
    records = records or Examples(np.zeros((n, 1), np.float32), np.zeros(n, np.int64))
    return attack(seen, target, records, knowledge or Knowledge(records[:0], 2, recipe=True))


class Models:
    """S models with a given loss of every record, which ``x`` carries in its first feature."""

    def __init__(self, losses, noise=0.0):
        self.losses, self.noise = np.asarray(losses, dtype=np.float64), noise

    def __len__(self):
        return len(self.losses)

    def held(self, records):
        return np.zeros((len(self), len(records)), dtype=bool)

    def logits(self, records):
        loss = self.losses[:, records.x[:, 0].astype(int)]
        gap = -np.log(np.expm1(loss))
        other = np.zeros_like(gap)
        mine = records.y == 1
        return np.stack([np.where(mine, other, gap), np.where(mine, gap, other)], axis=-1)


class Shadows:
    """Counts what it is asked for."""

    def __init__(self, models=None, worlds=()):
        self.models, self.worlds, self.asked = models, worlds, []

    def federations(self, online=False):
        self.asked.append("federations")
        assert not online
        return self.models

    def clients(self, start, size, online=False):
        self.asked.append((float(start["w"][0]), size))
        assert not online
        return self.models

    def transcripts(self):
        return self.worlds


def world(seed, leak=True, clients=6, each=15, strangers=160, rounds=16, taking_part=0.6):
    """Return a federation with independent gradients, as Li et al. take them to be.

    An update is a fifth of the sum of its records' gradients and noise, which drowns the first
    layer. Each record has a difficulty; trained on, its loss falls.
    """
    rng = np.random.default_rng(seed)
    owner = np.repeat([*range(clients), -1], [each] * clients + [strangers])
    n, T, K = len(owner), rounds, clients
    order = rng.permutation(n)
    trained = owner[order] if leak else rng.permutation(owner)
    present = rng.random((T, K)) < taking_part
    present[0] = present[-1] = True
    length = np.exp(rng.normal(scale=0.3, size=(T, n)))
    parts = {name: rng.normal(size=(T, n, size)) for name, size in zip(LAYERS, SIZES, strict=True)}
    parts = {k: v * length[..., None] / np.sqrt(sum(SIZES)) for k, v in parts.items()}
    drowned = {"first.weight": 3.0, "second.weight": 0.2, "second.bias": 0.0}
    updates = {
        k: 0.2
        * np.stack([g[:, trained == c].sum(axis=1) for c in range(K)], axis=1)
        * (1 if k != "second.bias" else 3)
        + drowned[k] * rng.normal(size=(T, K, g.shape[-1])) / np.sqrt(sum(SIZES))
        for k, g in parts.items()
    }
    inner = np.stack([np.einsum("tnd,tkd->tkn", parts[k], updates[k]) for k in LAYERS], axis=2)
    g = np.stack([np.linalg.norm(parts[k], axis=-1) for k in LAYERS], axis=1)
    u = np.stack([np.linalg.norm(updates[k], axis=-1) for k in LAYERS], axis=2)
    norm, size = np.sqrt((g**2).sum(axis=1)), np.sqrt((u**2).sum(axis=2))
    difficulty = 0.2 + rng.gamma(4.0, size=n)
    own = trained == np.arange(K)[:, None]
    local = difficulty + rng.normal(scale=0.3, size=(T, K, n)) - 1.5 * own
    there = np.array([present[:, c] if c >= 0 else np.zeros(T, bool) for c in trained]).T
    steps = rng.normal(scale=0.3, size=(T, n)) - 0.5 * there + 0.2 * ~there
    before = difficulty + 4 - (trained >= 0)
    series = np.vstack([before, before + steps.cumsum(axis=0)])
    last = (difficulty - 1.0 * (trained >= 0)) * np.ones((T + 1, 1))
    local = np.maximum(local, 0.01)
    signals = Signals(
        nodes=tuple(range(100, 100 + K)),
        present=present,
        rounds_global=(*range(1, T + 1), None),
        parameters=LAYERS,
        loss_global=series,
        logit_gap_global=-np.log(np.expm1(np.maximum(last, 0.01))),
        entropy_global=last,
        mentr_global=last,
        last_layer_norm_global=last,
        grad_norm=np.vstack([norm, last[-1:]]),
        loss_local=local,
        logit_gap_local=-np.log(np.expm1(local)),
        entropy_local=local,
        mentr_local=local,
        last_layer_norm_local=local,
        grad_norm_local=local,
        inner=inner.sum(axis=2),
        cosine=inner.sum(axis=2) / (norm[:, None] * size[..., None]),
        update_norm=size,
        parameter_inner=inner,
        parameter_norm=g,
        parameter_update_norm=u,
    )
    for name, value in vars(signals).items():
        if isinstance(value, np.ndarray) and value.shape[:2] == (T, K) and name != "present":
            value[~present] = np.nan
    x = np.arange(n, dtype=np.float32)[:, None]
    candidates = Examples(x, rng.integers(2, size=n))
    observations = Transcript(
        Observation(
            t + 1,
            {"w": np.full(1, t, np.float32)},
            signals.nodes,
            tuple(Update(100 + k, each, {}) for k in np.flatnonzero(present[t])),
        )
        for t in range(T)
    )
    models = Models(np.maximum(difficulty + rng.normal(scale=0.3, size=(8, n)), 0.01))
    federation = ShadowFederation(
        View(observations, signals), candidates, signals.nodes, owner[order]
    )
    return SimpleNamespace(
        view=federation.view,
        candidates=candidates,
        owner=federation.owner,
        nodes=signals.nodes,
        models=models,
        federation=federation,
    )


def permuted(made, order):
    """Return the same world with its candidates in another order."""
    n, signals = len(made.candidates), Signals(**vars(made.view.signals))
    for name, value in vars(signals).items():
        if isinstance(value, np.ndarray) and value.shape[-1] == n:
            setattr(signals, name, value[..., order])
    return SimpleNamespace(
        **vars(made)
        | {
            "view": View(made.view.transcript, signals),
            "candidates": made.candidates[order],
            "owner": made.owner[order],
        }
    )
