"""Scores of made-up federations, and the plainest way to measure them."""

import numpy as np

from fedmia.membership import Membership

FAST = Membership(bootstrap=100)


def rng(seed=0):
    return np.random.default_rng(seed)


def federation(generator, targets=10, each=20, held_out=300, signal=0.0, row=0.0, row_signal=0.0):
    owner = np.concatenate([np.repeat(np.arange(targets), each), np.full(held_out, -1)])
    scores = generator.normal(size=(targets, owner.size))
    scores += row * generator.normal(size=(targets, 1))
    strength = signal + row_signal * generator.normal(size=(targets, 1))
    scores += strength * (owner == np.arange(targets)[:, None])
    return scores, owner


def evaluate(scores, owner, labels=None, membership=FAST, seed=0):
    labels = np.zeros(owner.size, dtype=int) if labels is None else labels
    return membership.evaluate(scores, owner, labels, rng(seed))


def naive_auc(scores, members):
    inside, outside = scores[members], scores[~members]
    wins = [(a > b) + 0.5 * (a == b) for a in inside for b in outside]
    return sum(wins) / len(wins)
