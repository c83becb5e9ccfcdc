"""Shokri et al.: features by hand, a classifier a class, and classes that are missing."""

from dataclasses import replace

import numpy as np
import pytest
from reference_world import NODES, World
from scipy.special import softmax

from fedmia.attacks.base import Knowledge, NotApplicableError
from fedmia.attacks.shokri import Shokri, _judges, log_odds_of_classes
from fedmia.errors import ConfigError


def test_log_odds_are_those_of_the_posteriors():
    z = np.random.default_rng(0).normal(0, 3, (200, 5))
    p = softmax(z, axis=1)

    assert log_odds_of_classes(z) == pytest.approx(np.log(p / (1 - p)), abs=1e-9)


def test_log_odds_do_not_saturate():
    odds = log_odds_of_classes(np.array([[60.0, 0, 0], [90.0, 0, 0], [0, 0, -800.0]]))

    assert odds[:2, 0] == pytest.approx([60 - np.log(2), 90 - np.log(2)], abs=1e-9)
    assert odds[2] == pytest.approx([0, 0, -800 - np.log(2)], abs=1e-9)


def test_features_worked_out_by_hand():
    p = np.array([[0.1, 0.2, 0.3, 0.4]])
    odds = {v: np.log(v / (1 - v)) for v in p[0]}
    top = Shokri("top3").posteriors(np.log(p), np.array([1]))
    whole = Shokri("all").posteriors(np.log(p), np.array([1]))

    assert top[0] == pytest.approx([odds[0.4], odds[0.3], odds[0.2]], abs=1e-9)
    assert whole[0] == pytest.approx([odds[0.2], odds[0.4], odds[0.3], odds[0.1]], abs=1e-9)


def test_two_classes_give_two_features():
    z, y = np.array([[1.0, 0.0]]), np.array([0])

    assert Shokri("top3").posteriors(z, y).tolist() == [[1, -1]]
    assert Shokri("all").posteriors(z, y).tolist() == [[1, -1]]


@pytest.fixture(scope="module")
def world():
    return World()


def without(world, label, keep):
    """Return knowledge whose auxiliary records have ``keep`` records of a class."""
    auxiliary = world.knowledge.auxiliary
    rows = np.flatnonzero(auxiliary.y == label)[keep:]
    kept = auxiliary[np.delete(np.arange(len(auxiliary)), rows)]
    return Knowledge(kept, 3, shadows=world.knowledge.shadows)


def test_each_frequent_class_has_its_own_classifier(world):
    references = world.knowledge.shadows.federations()

    def classes(attack, knowledge):
        return set(_judges(attack, references, knowledge.auxiliary, knowledge.rng("shokri")))

    assert classes(Shokri(), world.knowledge) == {None, 0, 1, 2}
    assert classes(Shokri(), without(world, 1, 0)) == {None, 0, 2}
    assert classes(Shokri(), without(world, 1, 2)) == {None, 0, 2}
    assert classes(Shokri(per_class=10**6), world.knowledge) == {None}


def test_records_of_a_missing_class_get_the_classifier_of_all(world):
    partial = world.score(Shokri(), knowledge=without(world, 1, 0))
    pooled = world.score(Shokri(per_class=10**6), knowledge=without(world, 1, 0))
    missing = world.candidates.y == 1

    assert np.array_equal(partial[missing], pooled[missing])
    assert not np.allclose(partial[~missing], pooled[~missing])


def test_shadow_models_that_held_no_auxiliary_record_teach_nothing(world):
    shadows = world.knowledge.shadows
    strangers = Knowledge(world.candidates, 3, shadows=shadows)

    with pytest.raises(NotApplicableError, match=r"^needs shadow models that held some aux"):
        world.score(Shokri(), knowledge=strangers)


def test_the_global_classifiers_are_trained_once_for_all_targets(world):
    knowledge, seen = world.knowledge, world.view
    world.asked.clear()
    for node in NODES:
        own = replace(knowledge, known_members=np.array([NODES.index(node)]))
        Shokri()(seen, node, world.candidates, own)

    assert world.asked == [("federations", False)]


def test_a_network_finds_what_logistic_regression_finds():
    world = World(models=4)
    logistic, network = world.score(Shokri()), world.score(Shokri(classifier="mlp"))

    assert world.auc(network, None) > world.auc(logistic, None) - 0.03
    assert np.array_equal(network, world.score(Shokri(classifier="mlp")))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"features": "top5"}, "features=top5: expected all or top3"),
        ({"model": "other"}, "model=other: expected global or local"),
        ({"classifier": "forest"}, "classifier=forest: expected logistic or mlp"),
        ({"per_class": 1}, "per_class=1: expected at least 2"),
    ],
)
def test_settings_that_do_not_exist_are_refused(settings, line):
    with pytest.raises(ConfigError) as refusal:
        Shokri(**settings)
    assert str(refusal.value) == line
