"""The generative attacks: direction, a planted leak, a null, and that noise is common to all."""

from functools import cache

import numpy as np
import pytest
import torch
from signature_worlds import World, ask, knowledge, owners, rank_auc, records, view_of, world

from fedmia.attacks import generative
from fedmia.attacks.base import Knowledge, NotApplicableError
from fedmia.attacks.diffusion import Diffusion
from fedmia.attacks.vae import VAE
from fedmia.errors import ConfigError
from fedmia.vantages import Participant

ATTACKS = {
    f"{made.__name__.lower()} {calibration}": made(
        calibration, blocks=2, width=16, steps=80, **settings
    )
    for made, settings in ((VAE, {"samples": 16}), (Diffusion, {"times": 4, "samples": 2}))
    for calibration in ("clients", "shadow")
}
every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
MEMBERS = owners() == 0
SEEN, KNOWS = world(), knowledge()


@cache
def scores_of_all_targets(attack):
    return np.stack([ask(attack, SEEN, node, KNOWS) for node in SEEN.nodes])


@pytest.fixture(autouse=True)
def forgotten():
    generative._compare.cache_clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@every_attack
def test_a_planted_leak_is_found_for_every_target(attack):
    for position, scores in enumerate(scores_of_all_targets(attack)):
        assert rank_auc(scores, owners() == position) > 0.85


@every_attack
def test_without_a_leak_there_is_nothing_to_find(attack):
    seen, knows = world(leak=0.0), knowledge(leak=0.0)

    aucs = [
        rank_auc(ask(attack, seen, node, knows), owners() == position)
        for position, node in enumerate(seen.nodes)
    ]

    assert abs(np.mean(aucs) - 0.5) < 0.08  # the standard error is .03


@every_attack
def test_untypically_ill_fitted_records_are_no_members(attack):
    """What lies as far from typical as members do, but on the other side."""
    seen = world(leak=3.0).opposed(np.flatnonzero(owners() == 0))

    scores = ask(attack, seen, knows=knowledge(leak=3.0))

    assert rank_auc(scores, MEMBERS) < 0.2


@every_attack
def test_the_better_fitted_of_two_records_alike_scores_higher(attack):
    seen = world(leak=0.0)
    for name in ("logit_gap_global", "grad_norm", "loss_global"):
        getattr(seen, name)[:, 1] = getattr(seen, name)[:, 0]
    for name, step in (("cosine", 0.2), ("inner", 0.2), ("logit_gap_local", 1.0)):
        signal = getattr(seen, name)
        signal[:, :, 1] = signal[:, :, 0]
        scale = seen.grad_norm[:, 0] if name == "inner" else 1.0
        signal[:, 0, 1] += step * scale

    scores = ask(attack, seen)

    assert scores[1] > scores[0]


@every_attack
def test_scores_depend_on_the_record_alone_and_not_on_order_or_neighbours(attack):
    some = np.array([200, 3, 77, 41])

    apart = ask(attack, SEEN.picked(some), knows=KNOWS)

    together = scores_of_all_targets(attack)[0][some]
    assert np.allclose(apart, together, rtol=1e-4, atol=1e-4)


@every_attack
def test_two_clients_who_sent_the_same_get_the_same_score(attack):
    """Noise of its own for a client would tell them apart."""
    seen = world()
    for name in ("cosine", "inner", "logit_gap_local", "loss_local"):
        for signals in (seen, seen.auxiliary):
            getattr(signals, name)[:, 1] = getattr(signals, name)[:, 0]
    knows = knowledge()

    first, second = (ask(attack, seen, node, knows) for node in (100, 101))

    assert np.array_equal(first, second)


@every_attack
def test_the_same_question_gets_the_same_bits(attack):
    first = scores_of_all_targets(attack)[0]

    assert np.array_equal(first, ask(attack, SEEN, knows=KNOWS))
    other = ask(attack, SEEN, knows=knowledge(seed=1))
    assert not np.array_equal(first, other)
    assert rank_auc(other, MEMBERS) > 0.85


@every_attack
def test_models_are_trained_once_for_all_targets(attack, monkeypatch):
    calls, fit = [], generative._fit
    monkeypatch.setattr(generative, "_fit", lambda *given: (calls.append(given), fit(*given)))
    seen, shadows = world(), knowledge().shadows

    for node in seen.nodes:
        knows = Knowledge(records(150), 2, np.array([node]), shadows=shadows)
        ask(attack, seen, node, knows)

    assert len(calls) == (2 if attack.calibration == "shadow" else 1)


@every_attack
def test_a_client_that_was_away_at_times_is_scored_by_the_rounds_it_took_part_in(attack):
    seen = world()
    for signals in (seen, seen.auxiliary):
        signals.present[[0, 2, 3], 0] = False
        for name in ("cosine", "inner", "logit_gap_local", "loss_local"):
            getattr(signals, name)[[0, 2, 3], 0] = np.nan

    assert rank_auc(ask(attack, seen), MEMBERS) > 0.75


@every_attack
@pytest.mark.parametrize("target", [None, 7], ids=["nobody in particular", "unseen"])
def test_a_target_whose_updates_were_not_seen_is_not_guessed_at(attack, target):
    with pytest.raises(NotApplicableError, match="none of this target was seen"):
        ask(attack, world(), target)


@every_attack
def test_a_target_that_has_not_taken_part_yet_is_not_applicable(attack):
    seen = world()
    seen.present[:, 0] = False

    with pytest.raises(NotApplicableError, match="needs a round in which the target took part"):
        ask(attack, seen)


def test_calibration_by_clients_needs_another_client():
    seen = world()
    seen.present[:, 1:] = False

    with pytest.raises(NotApplicableError, match="needs another client whose updates were seen"):
        ask(ATTACKS["vae clients"], seen)
    assert rank_auc(ask(ATTACKS["vae shadow"], seen), MEMBERS) > 0.75


def test_shadow_federations_must_have_members():
    nobody = knowledge(federations=0)

    with pytest.raises(NotApplicableError, match="needs a shadow federation"):
        ask(ATTACKS["vae shadow"], world(), knows=nobody)


@every_attack
def test_what_vantage_and_knowledge_lack_is_named(attack):
    auxiliary = Knowledge(records(150), 2)
    seen = view_of(world(), Participant.shows, "participant")

    with pytest.raises(NotApplicableError, match="needs client updates"):
        attack(seen, 100, records(300), auxiliary)
    with pytest.raises(NotApplicableError, match="needs auxiliary records"):
        attack(view_of(world()), 100, records(300), Knowledge(records(0), 2))
    if attack.calibration == "shadow":
        with pytest.raises(NotApplicableError, match="needs shadow training"):
            attack(view_of(world()), 100, records(300), auxiliary)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: VAE("none"), "calibration=none: expected one of clients, shadow"),
        (lambda: VAE(blocks=0), "blocks=0: expected at least 1"),
        (lambda: Diffusion(width=0), "width=0: expected at least 1"),
        (lambda: Diffusion(steps=0), "steps=0: expected at least 1"),
        (lambda: VAE(latent=0), "latent=0: expected at least 1"),
        (lambda: VAE(samples=15), "samples=15: expected at least 16"),
        (lambda: Diffusion(times=0), "times=0: expected at least 1"),
        (lambda: Diffusion(samples=0), "samples=0: expected at least 1"),
    ],
)
def test_settings_that_do_not_exist_are_refused(make, said):
    with pytest.raises(ConfigError) as caught:
        make()

    assert str(caught.value) == said


def test_the_score_is_the_targets_excess_less_the_mean_of_the_other_clients(monkeypatch):
    table = np.array([[5.0, 1.0], [2.0, 3.0], [4.0, 9.0]])
    monkeypatch.setattr(generative, "_compare", lambda *given: table)
    seen = World([0, -1], 0, clients=4, auxiliary=World([-1, -1], 1))
    seen.present[:, 1] = False  # the rows are those of clients 0, 2 and 3

    assert ask(ATTACKS["vae clients"], seen, 102).tolist() == [2.0 - 4.5, 3.0 - 5.0]
    assert ask(ATTACKS["vae shadow"], seen, 103).tolist() == [4.0, 9.0]
