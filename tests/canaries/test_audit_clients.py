"""What canary clients prove: much without noise, nothing in huge noise, seldom too much."""

import numpy as np
import pytest

from clients.canaries.random_direction import RandomDirection
from fedmia.audit import epsilon_of_mu, one_shot_all_rounds, one_shot_final, one_shot_lower_bound
from fedmia.canaries.audit_clients import audit_canaries, ceiling
from fedmia.canaries.watch import Watch
from fedmia.promised import CanaryClients
from fedmia.schema import check

DIMENSION, DELTA, CONFIDENCE = 3000, 1e-5, 0.95


def rng(seed=0):
    return np.random.default_rng(seed)


def trained(noise, rounds=4, count=60, dimension=DIMENSION, seed=0):
    """Rounds in which every canary sends its direction and the sum gets Gaussian noise."""
    canaries = RandomDirection(count=count, num_clients=count + 2, seed=seed)
    total = canaries.directions(dimension).sum(axis=0)
    generator, model = rng(seed), np.zeros(dimension, np.float32)
    watch = Watch(canaries)
    watch.see(0, {"w": model})
    for t in range(1, rounds + 1):
        model = (model + total + noise * generator.normal(size=dimension)).astype(np.float32)
        watch.see(t, {"w": model})
    return watch


def audited(watch, seed=0):
    return audit_canaries(watch, DELTA, CONFIDENCE, rng(seed))


def test_the_figures_are_those_of_the_published_statistics():
    watch = trained(noise=1.0)
    found = audited(watch)
    final = watch.since_start[4]
    expected = one_shot_final(final, DIMENSION, DELTA)
    assert (found["count"], found["dimension"]) == (60, DIMENSION)
    assert found["epsilon_estimate_final"] == expected.epsilon
    assert found["normality"] == expected.normality
    assert (
        found["epsilon_estimate_all_rounds"]
        == one_shot_all_rounds(watch.largest_sent, watch.largest_unsent, DELTA).epsilon
    )
    bound = one_shot_lower_bound(final, DIMENSION, DELTA, CONFIDENCE, rng())
    assert found["epsilon_lower_bound"] == bound
    assert found["per_round"][-1] == {"round": 4, "epsilon_lower_bound": bound}
    assert [entry["round"] for entry in found["per_round"]] == [1, 2, 3, 4]
    check(found, CanaryClients)


def test_noise_hides_the_canaries():
    found = [audited(trained(noise)) for noise in (0.0, 1.0, 4.0, 1000.0)]
    bounds = [f["epsilon_lower_bound"] for f in found]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > 20 > 5 > bounds[1] > bounds[2]
    assert bounds[3] == 0
    assert found[3]["epsilon_estimate_final"] < 1.5
    assert found[3]["epsilon_estimate_all_rounds"] < 3


def test_the_estimate_is_near_the_epsilon_of_the_noise():
    """Four sums of unit vectors with noise 4 each: one Gaussian mechanism of μ = √4/4."""
    found = [audited(trained(4.0, count=200, seed=s)) for s in range(3)]
    truth = epsilon_of_mu(0.5, DELTA)
    assert np.mean([f["epsilon_estimate_final"] for f in found]) == pytest.approx(truth, rel=0.35)


def test_the_bound_is_rarely_above_the_epsilon_of_the_noise():
    truth = epsilon_of_mu(1.0, DELTA)
    found = [
        audited(trained(2.0, count=40, dimension=800, seed=s), s)["epsilon_lower_bound"]
        for s in range(100)
    ]
    assert np.mean(np.array(found) > truth) <= 0.05
    assert np.mean(found) > 0


def test_bounds_of_all_rounds_come_from_the_same_halves():
    watch = trained(noise=1.0)
    watch.since_start = {1: watch.since_start[4], 2: watch.since_start[4]}
    first, second = audited(watch)["per_round"]
    assert first["epsilon_lower_bound"] == second["epsilon_lower_bound"] > 0


def test_a_model_that_never_changed_shows_nothing():
    watch = Watch(RandomDirection(count=8, num_clients=10))
    for t in range(3):
        watch.see(t, {"w": np.ones(50, np.float32)})
    found = audited(watch)
    nothing = ("epsilon_lower_bound", "epsilon_estimate_final", "epsilon_estimate_all_rounds")
    assert [found[key] for key in (*nothing, "normality")] == [None] * 4
    assert [entry["epsilon_lower_bound"] for entry in found["per_round"]] == [None, None]
    check(found, CanaryClients)


def test_a_training_without_a_round_has_no_figures():
    found = audited(Watch(RandomDirection(count=8, num_clients=10)))
    assert found["dimension"] == 0
    assert found["epsilon_ceiling"] is None
    assert found["per_round"] == []


@pytest.mark.parametrize("count", [8, 21])
@pytest.mark.parametrize("dimension", [40, 400])
def test_no_change_of_the_model_exceeds_the_ceiling(count, dimension):
    canaries = RandomDirection(count=count, num_clients=count + 2)
    rows = canaries.directions(dimension).astype(np.float64)
    generator, best = rng(), 0.0
    for trial in range(60):
        chosen = generator.permutation(count)[: generator.integers(1, count + 1)]
        # equally close to all of the chosen ones
        change = np.linalg.pinv(rows[chosen]) @ np.ones(chosen.size)
        watch = Watch(canaries)
        watch.see(0, {"w": np.zeros(dimension, np.float32)})
        watch.see(1, {"w": change.astype(np.float32)})
        found = audited(watch, trial)
        best = max(best, found["epsilon_lower_bound"])
        assert found["epsilon_lower_bound"] <= found["epsilon_ceiling"]
    assert best > 0.1 * ceiling(watch, DELTA, CONFIDENCE)


def test_in_many_dimensions_the_ceiling_is_what_a_double_holds():
    watch = trained(noise=0.0, count=8, dimension=20_000, rounds=1)
    assert 690 < ceiling(watch, DELTA, CONFIDENCE) < 710
