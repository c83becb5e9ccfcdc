"""What holds for every attack that has models of its own or of others to compare with."""

import numpy as np
import pytest
from reference_world import CLIENTS, EACH, NODES, ROUNDS, SHOWN, World

from fedmia.attacks.attack_r import AttackR
from fedmia.attacks.base import Knowledge, NotApplicableError
from fedmia.attacks.lira import LiRA
from fedmia.attacks.loss_trajectory import LossTrajectory
from fedmia.attacks.quantile_regression import QuantileRegression
from fedmia.attacks.reference_models import gaps_of
from fedmia.attacks.rmia import RMIA
from fedmia.attacks.shokri import Shokri
from fedmia.attacks.yeom_loss import YeomLoss
from fedmia.errors import ConfigError
from fedmia.records import Capability, implied
from fedmia.vantages import FinalModel, Participant

REFERENCES = {
    "lira online": LiRA("online"),
    "lira online local": LiRA("online", "local"),
    "lira online per example": LiRA("online", variance="per_example"),
    "lira offline": LiRA(),
    "lira offline local": LiRA(model="local"),
    "lira offline per example": LiRA(variance="per_example"),
    "lira clients": LiRA("clients", "local"),
    "lira queries": LiRA(queries=3),
    "rmia": RMIA(),
    "rmia local": RMIA(model="local"),
    "rmia clients": RMIA("clients", "local", a=0.3),
    "attack_r": AttackR(),
    "attack_r local": AttackR(model="local"),
    "attack_r clients": AttackR("clients", "local"),
    "quantile_regression": QuantileRegression(),
    "quantile_regression local": QuantileRegression(model="local"),
    "quantile_regression quantile": QuantileRegression("quantile", 0.7),
}
LEARNT = {
    "shokri": Shokri(),
    "shokri top3": Shokri("top3"),
    "shokri local": Shokri(model="local"),
    "loss_trajectory": LossTrajectory(epochs=3),
    "loss_trajectory global": LossTrajectory("global", epochs=3),
}
ATTACKS = REFERENCES | LEARNT
every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
calibrated = pytest.mark.parametrize("attack", REFERENCES.values(), ids=REFERENCES)


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def uninformative():
    return World(leak=0.0)


@every_attack
def test_a_planted_leak_is_found(world, attack):
    assert world.auc(world.score(attack)) > 0.6


@calibrated
def test_a_record_is_judged_by_how_easy_it_is(world, attack):
    """Records differ in difficulty by more than membership does: one threshold finds less."""
    plain = world.auc(world.score(YeomLoss("local")))

    assert plain < 0.75
    assert world.auc(world.score(attack)) > plain + 0.05


@every_attack
def test_nothing_is_found_where_there_is_nothing(uninformative, attack):
    scores = uninformative.score(attack)

    assert abs(uninformative.auc(scores, None) - 0.5) < 0.08
    assert len(np.unique(scores)) > 50


@every_attack
def test_scores_move_with_the_candidates(world, attack):
    order = np.random.default_rng(1).permutation(len(world.candidates))

    moved = world.score(attack, candidates=world.candidates[order])

    assert moved == pytest.approx(world.score(attack)[order], rel=1e-5, abs=1e-6)


@every_attack
def test_another_adversary_of_the_same_seed_gets_the_same_bits(world, attack):
    """Fresh knowledge: what was trained is trained again."""
    assert np.array_equal(world.score(attack), world.score(attack))


@every_attack
def test_a_record_that_the_target_fits_better_scores_higher(world, attack):
    if attack == LiRA("online", variance="per_example"):
        pytest.skip("a ratio of Gaussians of unequal width falls on one side")
    seen = world.view
    ask = attack(seen, NODES[0], world.candidates, world.knowledge)
    ease = world.candidates.x[:, 0]
    chosen = np.flatnonzero((ease > -0.5) & (ease < 2) & (ask < np.quantile(ask, 0.8)))
    seen.signals.logit_gap_global[:, chosen] += 3
    seen.signals.logit_gap_local[:, 0, chosen] += 3

    after = attack(seen, NODES[0], world.candidates, world.knowledge)

    assert np.mean(after[chosen] > ask[chosen]) > 0.95


@every_attack
def test_what_an_attack_lacks_is_said(world, attack):
    seen = world.view
    for kind in (Participant(NODES[0]), FinalModel()):
        seen.transcript.shows = kind.shows
        if attack.requirements() <= implied(kind.shows) | world.knowledge.gives:
            assert attack(seen, None, world.candidates, world.knowledge).any()
        else:
            with pytest.raises(NotApplicableError, match=r"^needs "):
                attack(seen, None, world.candidates, world.knowledge)
    seen.transcript.shows = SHOWN
    poor = Knowledge(world.knowledge.auxiliary[:0], 3)
    if attack.requirements() <= implied(SHOWN):
        assert attack(seen, NODES[0], world.candidates, poor).any()
    else:
        with pytest.raises(NotApplicableError, match=r"^needs (auxiliary records|shadow training)"):
            attack(seen, NODES[0], world.candidates, poor)


@every_attack
def test_a_target_that_was_never_seen_cannot_be_asked_about(world, attack):
    if Capability.CLIENT_UPDATES not in attack.requirements():
        scores = world.score(attack)
        assert np.array_equal(world.score(attack, target=None), scores)
        assert np.array_equal(world.score(attack, target=NODES[3]), scores)
        return
    with pytest.raises(NotApplicableError, match=r"^needs client updates; none of this target"):
        world.score(attack, target=7)


def test_shadow_clients_start_where_the_target_did_and_have_as_many_records():
    present = np.ones((ROUNDS, CLIENTS), bool)
    present[3:, 2] = False
    world = World(present=present)

    world.score(LiRA(model="local"), target=NODES[2])
    world.score(LiRA("online", "local"), target=NODES[1])
    world.score(RMIA(), target=NODES[1])

    assert world.asked[:2] == [("clients", 2, EACH + 2, False), ("clients", 4, EACH + 1, True)]
    assert set(world.asked[2:]) == {("federations", False)}


@pytest.mark.parametrize(
    "attack", [LiRA("clients"), RMIA("clients", a=0.3), AttackR("clients")], ids=repr
)
def test_rounds_without_the_target_or_with_too_few_others_do_not_count(attack):
    present = np.zeros((ROUNDS, CLIENTS), bool)
    present[1] = True
    present[2, 1:] = True
    present[3, 0] = True
    world, whole = World(present=present), World()

    only = whole.view
    kept = whole.view.signals.logit_gap_local
    only.signals.logit_gap_local = np.repeat(kept[1:2], ROUNDS, axis=0)
    if isinstance(attack, RMIA):
        assert np.isfinite(world.score(attack)).all()
    else:
        expected = attack(only, NODES[0], whole.candidates, whole.knowledge)
        assert world.score(attack) == pytest.approx(expected)

    nobody = World(present=np.eye(ROUNDS, CLIENTS, dtype=bool))
    with pytest.raises(NotApplicableError, match=r"^needs a round with the target and \d other"):
        nobody.score(attack)


def test_the_gap_of_reference_logits_does_not_saturate(world):
    references = world.knowledge.shadows.federations()
    far = world.candidates[:5]
    far.x[:] += 0
    raised = type(far)(far.x + np.array([60, 0], np.float32), far.y)

    assert gaps_of(references, raised) == pytest.approx(gaps_of(references, far) + 60, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"mode": "sideways"}, "mode=sideways: expected one of online, offline, clients"),
        ({"model": "other"}, "model=other: expected global or local"),
        ({"rounds": "some"}, "rounds=some: expected all or last"),
    ],
)
def test_settings_that_do_not_exist_are_refused(settings, line):
    with pytest.raises(ConfigError) as refusal:
        LiRA(**settings)
    assert str(refusal.value) == line


@pytest.mark.parametrize("attack", [RMIA, AttackR])
def test_only_lira_compares_with_models_that_hold_the_record(attack):
    with pytest.raises(ConfigError) as refusal:
        attack("online")
    assert str(refusal.value) == "mode=online: expected one of offline, clients"
