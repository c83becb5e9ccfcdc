"""What is measured of directions is what a naive twin measures of all models at the end."""

import numpy as np
import pytest

from clients.canaries.random_direction import RandomDirection
from fedmia.audit import cosines, max_cosines
from fedmia.canaries.watch import CanaryClients, Watch

CANARIES = RandomDirection(count=9, num_clients=20, seed=1)
ROUNDS = 6


def models(moves):
    """The models of a training whose rounds move it so, as named arrays; and as vectors."""
    start = np.random.default_rng(5).normal(size=moves.shape[1]).astype(np.float32)
    vectors = np.concatenate([start[None], start + np.cumsum(moves, axis=0)]).astype(np.float32)
    named = [
        {"w": v[:60].reshape(6, 10), "n": np.array(3), "b": v[60:].astype(np.float32)}
        for v in vectors
    ]
    return named, vectors


def watched(moves):
    watch = Watch(CANARIES)
    named, vectors = models(moves)
    for number, params in enumerate(named):
        watch.see(number, params)
    return watch, vectors


def test_the_plug_in_can_be_watched():
    assert isinstance(CANARIES, CanaryClients)


def test_cosines_are_those_of_a_naive_twin():
    sent, unsent = CANARIES.directions(100), CANARIES.directions(100, unsent=True)
    moves = np.random.default_rng(0).normal(size=(ROUNDS, 100)) + sent.sum(axis=0)

    watch, vectors = watched(moves)

    assert watch.dimension == 100
    assert list(watch.since_start) == list(range(1, ROUNDS + 1))
    for t, found in watch.since_start.items():
        np.testing.assert_allclose(found, cosines(sent, vectors[t] - vectors[0]), atol=1e-5)
    steps = np.diff(vectors, axis=0)
    np.testing.assert_allclose(watch.largest_sent, max_cosines(sent, steps), atol=1e-5)
    np.testing.assert_allclose(watch.largest_unsent, max_cosines(unsent, steps), atol=1e-5)
    spectrum = np.linalg.svd(sent.astype(np.float64), compute_uv=False)
    assert watch.overlap == pytest.approx(spectrum[0] ** 2, rel=1e-5)
    worst = max(abs(a @ b) for i, a in enumerate(sent) for b in sent[:i])
    assert watch.coherence == pytest.approx(worst, rel=1e-5)


def test_no_change_of_unit_length_has_more_of_all_directions_than_the_overlap():
    sent = CANARIES.directions(100).astype(np.float64)
    _, _, along = np.linalg.svd(sent)
    watch, _ = watched(np.stack([along[0], sent.sum(axis=0)]))
    squares = [np.square(found).sum() for found in watch.since_start.values()]
    assert squares[0] == pytest.approx(watch.overlap, rel=1e-4)
    assert squares[1] < watch.overlap


def test_a_round_that_changes_nothing_has_no_cosine():
    moves = np.zeros((3, 100))
    moves[1] = 4 * CANARIES.directions(100)[0]
    watch, _ = watched(moves)
    assert watch.since_start[1] is None
    assert watch.since_start[2][0] == pytest.approx(1, abs=1e-5)
    assert watch.since_start[3][0] == pytest.approx(1, abs=1e-5)
    assert watch.largest_sent[0] == pytest.approx(1, abs=1e-5)


def test_cosines_stay_within_one():
    moves = np.tile(1e3 * CANARIES.directions(100)[3], (1, 1))
    watch, _ = watched(moves)
    assert np.abs(watch.since_start[1]).max() <= 1
