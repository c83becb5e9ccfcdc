"""RMIA: by hand, against a naive loop, and how a is tuned."""

import numpy as np
import pytest
from reference_world import NODES, World

from fedmia.attacks.base import NotApplicableError
from fedmia.attacks.reference_models import Panel
from fedmia.attacks.rmia import RMIA, log_ratio, tune
from fedmia.errors import ConfigError


def gap(p):
    p = np.array(p, dtype=np.float64)
    return np.log(p / (1 - p))


def panel(p, of_references, held=None):
    of_references = np.array(of_references)
    held = np.zeros(of_references.shape, bool) if held is None else np.array(held, bool)
    return Panel(gap(p), gap(of_references), held)


def test_the_ratio_worked_out_by_hand():
    # record 0: P_out = (.2 + .6) / 2; record 1 was held by the second reference: P_out = .5
    seen = panel([0.8, 0.5], [[0.2, 0.5], [0.6, 0.9]], [[0, 0], [0, 1]])

    # Pr(x) = ½[(1 + a) P_out + (1 − a)]
    assert np.exp(log_ratio(seen, 1.0)) == pytest.approx([0.8 / 0.4, 0.5 / 0.5], abs=1e-12)
    assert np.exp(log_ratio(seen, 0.0)) == pytest.approx([0.8 / 0.7, 0.5 / 0.75], abs=1e-12)
    assert np.exp(log_ratio(seen, 0.5)) == pytest.approx([0.8 / 0.55, 0.5 / 0.625], abs=1e-12)


def test_a_record_that_every_reference_held_has_no_ratio():
    seen = panel([0.8, 0.5], [[0.2, 0.5], [0.6, 0.9]], [[1, 0], [1, 1]])

    assert np.isnan(log_ratio(seen, 0.5)).tolist() == [True, False]


def test_ratios_of_records_that_no_reference_fits_are_finite():
    seen = Panel(np.array([-2000.0, 900.0]), np.full((2, 2), -2000.0), np.zeros((2, 2), bool))

    for a in (0.0, 1.0):
        assert np.isfinite(log_ratio(seen, a)).all()


def naive(view, world, a, gamma):
    """Return the paper's score, a pair (x, z) at a time."""
    references = world.knowledge.shadows.federations()
    auxiliary = world.knowledge.auxiliary

    def ratios(records, gaps):
        z = references.logits(records)
        p_of = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
        held, found = references.held(records), []
        for j, y in enumerate(records.y):
            out = [p_of[s, j, y] for s in range(len(references)) if not held[s, j]]
            if out:
                p_x = 0.5 * ((1 + a) * np.mean(out) + (1 - a))
                found.append(1 / (1 + np.exp(-gaps[j])) / p_x)
        return found

    of_x = ratios(world.candidates, view.signals.logit_gap_global[-1])
    of_z = ratios(auxiliary, view.signals.of(auxiliary).logit_gap_global[-1])
    return [np.mean([x / z >= gamma for z in of_z]) for x in of_x]


@pytest.mark.parametrize(("a", "gamma"), [(0.3, 1.0), (1.0, 2.0), (0.0, 1.3)])
def test_the_fast_score_is_the_naive_one(a, gamma):
    world = World(models=3)

    fast = world.score(RMIA(a=a, gamma=gamma))

    assert fast == pytest.approx(naive(world.view, world, a, gamma), abs=1 / 300 + 1e-9)
    assert np.mean(np.abs(fast - naive(world.view, world, a, gamma)) < 1e-9) > 0.99


def test_the_score_has_the_order_of_the_ratio():
    world = World()
    (seen,) = RMIA().panels(world.view, None, world.view.signals, world.candidates, world.knowledge)
    order = np.argsort(log_ratio(seen, 0.5))

    assert (np.diff(world.score(RMIA(a=0.5))[order]) >= 0).all()


def test_with_clients_the_others_of_the_same_round_are_the_references():
    world = World()
    attack, seen, z = RMIA("clients", a=0.3, rounds="last"), world.view, world.knowledge.auxiliary
    x_gaps, z_gaps = seen.signals.logit_gap_local[-1], seen.signals.of(z).logit_gap_local[-1]
    of_x = log_ratio(Panel(x_gaps[2], np.delete(x_gaps, 2, 0), np.zeros((5, 480), bool)), 0.3)
    of_z = log_ratio(Panel(z_gaps[2], np.delete(z_gaps, 2, 0), np.zeros((5, 300), bool)), 0.3)

    scores = attack(seen, NODES[2], world.candidates, world.knowledge)

    assert scores == pytest.approx((of_x[:, None] >= of_z).mean(axis=1), abs=1e-12)


def test_a_is_tuned_on_references_and_never_on_the_target():
    """Records differ in difficulty: 1 − a pulls Pr(x) away from it, so a large a is right."""
    world = World()
    (of_z,) = RMIA().panels(
        world.view, None, world.view.signals, world.knowledge.auxiliary, world.knowledge
    )
    swapped = Panel(-of_z.gap, of_z.gaps, of_z.held)

    assert tune(of_z) == tune(swapped)
    assert tune(of_z) in np.linspace(0, 1, 11)
    assert np.array_equal(world.score(RMIA()), world.score(RMIA(a=tune(of_z))))


def test_tuning_takes_the_best_of_the_grid():
    """Hand-made: difficulty drowns membership unless it is divided out, which a = 1 does."""
    rng = np.random.default_rng(0)
    p_out = rng.uniform(0.01, 0.5, 400)
    held = rng.random((4, 400)) < 0.5
    p = np.clip(p_out * np.where(held, 1.3, 1.0), 0, 0.99)

    assert tune(Panel(gap(p[0]), gap(p), held)) == 1.0


def test_a_cannot_be_tuned_on_one_reference_or_on_references_that_held_nothing():
    with pytest.raises(NotApplicableError, match=r"^needs 2 reference models, has 1$"):
        World(models=1).score(RMIA())
    assert np.isfinite(World(models=1).score(RMIA(a=0.3))).all()
    with pytest.raises(NotApplicableError, match=r"^needs reference models that held some aux"):
        tune(panel([0.5], [[0.5], [0.4]]))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"gamma": 0.0}, "gamma=0.0: expected more than 0"),
        ({"a": 1.5}, "a=1.5: expected in [0, 1], or null to tune it"),
        (
            {"mode": "clients"},
            "a=None: expected a number in [0, 1] where other clients are the references",
        ),
    ],
)
def test_settings_that_do_not_exist_are_refused(settings, line):
    with pytest.raises(ConfigError) as refusal:
        RMIA(**settings)
    assert str(refusal.value) == line
