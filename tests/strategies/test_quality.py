"""The parts of an update's quality, by hand and against a naive twin."""

import numpy as np
import pytest

from strategies import quality


def naive_agreement(rows, weights, iterations=10):
    """Weiszfeld on the vectors themselves, then each cosine with the mean of the others' shares."""
    nearest = 1e-3 * np.linalg.norm(rows, axis=1).max()
    shares = weights / weights.sum()
    for _ in range(iterations):
        distances = np.linalg.norm(rows - shares @ rows, axis=1)
        shares = weights / np.maximum(distances, nearest)
        shares /= shares.sum()
    found = []
    for place, row in enumerate(rows):
        others = np.delete(shares, place) @ np.delete(rows, place, axis=0)
        cosine = row @ others / np.linalg.norm(row) / np.linalg.norm(others)
        found.append(max(0.0, cosine))
    return np.array(found)


def test_agreement_equals_the_naive_one():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(7, 40)) + np.linspace(-1, 1, 7)[:, None]
    weights = rng.random(7)
    found = quality.agreement(rows @ rows.T, weights)
    np.testing.assert_allclose(found, naive_agreement(rows, weights), rtol=1e-9)
    assert 0 < found.max() < 1


def test_two_that_agree_outvote_one_and_weights_turn_it():
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    equal = quality.agreement(rows[:3] @ rows[:3].T, np.ones(3))
    np.testing.assert_allclose(equal, [1, 1, 0], atol=2e-3)
    trusted = quality.agreement(rows @ rows.T, np.array([0.1, 0.1, 1.0, 1.0]))
    np.testing.assert_allclose(trusted, [0, 0, 1, 1], atol=2e-3)


def test_an_update_does_not_agree_with_itself():
    rows = np.eye(5)
    np.testing.assert_allclose(quality.agreement(rows @ rows.T, np.ones(5)), 0, atol=1e-12)


def test_without_weight_an_update_is_judged_and_moves_nobody():
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [3.0, 4.0]])
    weights = np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    found = quality.agreement(rows @ rows.T, weights)
    np.testing.assert_allclose(found[3:], [0, 0.6], atol=0.03)
    alone = quality.agreement(rows[:3] @ rows[:3].T, weights[:3])
    np.testing.assert_allclose(found[:3], alone)


def test_consistency_is_the_cosine_with_the_own_past_and_unknown_without_one():
    rows = np.array([[3, 4], [1, 0], [-1, 0], [1, 1], [0, 0]], np.float32)
    past = [np.array(h, np.float32) if h else None for h in ([2, 0], [5, 0], [5, 0], None, [1, 0])]
    np.testing.assert_allclose(quality.consistency(rows, past), [0.6, 1, 0, np.nan, 0], rtol=1e-6)
    zero = [np.zeros(2, np.float32)] * 5
    assert np.isnan(quality.consistency(rows, zero)).all()


def test_values_are_relative_to_the_median_voter():
    values = np.array([0.4, 0.2, 0.1, np.nan, 0.0, 9.0])
    voters = np.array([True, True, True, True, False, False])
    found = quality.relative(values, voters, 0.2)
    np.testing.assert_allclose(found, [1, 1, 0.5, np.nan, 0, 1])
    assert np.isnan(quality.relative(values, voters, 0.21)).all()


@pytest.mark.parametrize("gain", [0.0, -0.1, np.nan])
def test_a_root_set_on_which_the_median_voter_gains_nothing_says_nothing(gain):
    gains = np.array([gain, gain, gain])
    assert np.isnan(quality.relative(gains, np.ones(3, bool), 0.0)).all()


def test_parts_are_combined_by_weights_and_one_bad_part_is_enough():
    first = np.array([0.64, 0.5, 0.5, 0.9, np.nan])
    second = np.array([0.125, np.nan, 0.0, 0.9, np.nan])
    found = quality.combined([(2.0, first), (1.0, second)])
    np.testing.assert_allclose(found, [(0.64**2 * 0.125) ** (1 / 3), 0.5, 0.0, 0.9, np.nan])


def test_a_part_of_weight_nothing_counts_for_nothing():
    found = quality.combined([(1.0, np.array([0.7])), (0.0, np.array([0.0]))])
    np.testing.assert_allclose(found, 0.7)


def test_the_evidence_names_what_was_measured():
    parts = {"agreement": np.array([0.1, 0.2]), "consistency": np.array([np.nan, 0.3])}
    assert quality.evidence(parts, 0) == {"agreement": 0.1}
    assert quality.evidence(parts, 1) == {"agreement": 0.2, "consistency": 0.3}
