"""The stacked attack: by hand, against its components, and what it leaves out."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import norm
from signature_worlds import (
    MadeShadows,
    World,
    ask,
    knowledge,
    owners,
    rank_auc,
    records,
    view_of,
    world,
)

from fedmia.attacks import ensemble
from fedmia.attacks.base import Knowledge, NotApplicableError
from fedmia.attacks.ensemble import COMPONENTS, Ensemble, normal_scores
from fedmia.errors import ConfigError
from fedmia.vantages import Participant

NAMES = ("yeom_loss", "loss_series", "avg_cosine", "fedmia_ii")
STACK = Ensemble(NAMES)
MEMBERS = owners() == 0


@pytest.fixture(autouse=True)
def forgotten():
    ensemble._from_shadows.cache_clear()


def known(members=8, **settings):
    """Return knowledge of some of the target's members and as many records that nobody held."""
    others = np.flatnonzero(owners() == -1)[:members]
    return Knowledge(records(150), 2, np.flatnonzero(MEMBERS)[:members], others, **settings)


def test_normal_scores_are_quantiles_of_ranks_worked_out_by_hand():
    seen = World([0, -1, -1, -1], 0)
    seen.cosine = np.zeros_like(seen.cosine)
    seen.cosine[:, 0] = [0.3, 0.1, 0.1, -5.0]  # ranks 4, 2½, 2½, 1

    found = normal_scores(["avg_cosine"], view_of(seen), 100, records(4), 2)

    expected = [norm.ppf(7 / 8), 0.0, 0.0, norm.ppf(1 / 8)]
    assert found["avg_cosine"] == pytest.approx(expected, abs=1e-9)


def test_the_weights_minimise_the_penalised_balanced_log_loss():
    rng = np.random.default_rng(0)
    labels = rng.random(300) < 0.2
    features = rng.normal(size=(300, 2)) + labels[:, None] * np.array([1.0, 0.3])
    weight = np.where(labels, 150 / labels.sum(), 150 / (~labels).sum())

    def loss(b0, b):
        margin = np.where(labels, 1, -1) * (features @ b + b0)
        return (weight * np.logaddexp(0, -margin)).sum() + 0.5 * 3.0 * b @ b

    beta = ensemble._fit(features, labels, 3.0)

    intercepts = np.linspace(-2, 2, 4001)
    best = min(loss(b0, beta) for b0 in intercepts)
    for step in ([0.02, 0], [-0.02, 0], [0, 0.02], [0, -0.02]):
        assert min(loss(b0, beta + step) for b0 in intercepts) > best


@pytest.mark.parametrize("training", ["shadow", "known"])
def test_a_planted_leak_is_found(training):
    knows = knowledge() if training == "shadow" else known()
    scores = ask(Ensemble(NAMES, training), world(), knows=knows)
    judged = np.ones(300, dtype=bool)
    judged[np.concatenate([knows.known_members, knows.known_nonmembers])] = False

    assert rank_auc(scores[judged], MEMBERS[judged]) > 0.9


def test_what_shadows_show_to_be_useless_gets_no_weight():
    """The stack is as good as its best component, a mean of all is not."""
    seen = world(leak=1.0)
    target = np.stack([*normal_scores(NAMES, view_of(seen), 100, records(300), 2).values()])
    aucs = [rank_auc(column, MEMBERS) for column in target]

    stacked = rank_auc(ask(STACK, seen, knows=knowledge(leak=1.0)), MEMBERS)

    assert stacked > max(aucs) - 0.01
    assert stacked > rank_auc(target.mean(axis=0), MEMBERS)


@pytest.mark.parametrize("training", ["shadow", "known"])
def test_without_a_leak_there_is_nothing_to_find(training):
    aucs = []
    for seed in range(6):
        knows = knowledge(leak=0.0) if training == "shadow" else known()
        scores = ask(Ensemble(NAMES, training), world(seed, leak=0.0), knows=knows)
        judged = np.ones(300, dtype=bool)
        judged[np.concatenate([knows.known_members, knows.known_nonmembers])] = False
        aucs.append(rank_auc(scores[judged], MEMBERS[judged]))

    assert abs(np.mean(aucs) - 0.5) < 0.08


def test_a_record_that_every_component_prefers_scores_higher():
    seen = world(leak=0.0)
    seen.cosine[:, 0, 1] = seen.cosine[:, 0].max() + 1
    seen.loss_local[:, 0, 1] = seen.loss_local[:, 0].min() - 1
    seen.loss_global[:, 1] = seen.loss_global.min() - 1

    scores = ask(STACK, seen)

    assert scores[1] > np.median(np.delete(scores, 1)) + 1
    assert scores[1] > np.quantile(scores, 0.98)


def test_another_order_of_the_candidates_gives_the_same_scores_in_that_order():
    seen, knows, order = world(), knowledge(), np.random.default_rng(0).permutation(300)

    moved = ask(STACK, seen.picked(order), knows=knows)

    assert np.allclose(moved, ask(STACK, seen, knows=knows)[order], rtol=0, atol=1e-12)


def test_the_same_question_gets_the_same_bits():
    first = ask(STACK, world())

    assert np.array_equal(first, ask(STACK, world()))


def test_the_stack_is_learnt_once_for_all_targets(monkeypatch):
    calls, fit = [], ensemble._fit
    monkeypatch.setattr(ensemble, "_fit", lambda *given: (calls.append(1), fit(*given))[1])
    seen, shadows = world(), knowledge().shadows

    for node in seen.nodes:
        ask(STACK, seen, node, Knowledge(records(150), 2, np.array([node]), shadows=shadows))

    assert len(calls) == 1


def test_components_that_the_vantage_does_not_serve_are_left_out():
    stack = Ensemble((*NAMES, "loss_series_global"))
    shadow = world(500)
    made = SimpleNamespace(
        view=view_of(shadow, Participant.shows, "participant"),
        candidates=records(300),
        nodes=(None,),
        owner=np.where(shadow.owner >= 0, 0, -1),
    )
    view = view_of(world(), Participant.shows, "participant")
    knows = Knowledge(records(150), 2, shadows=MadeShadows([made]))

    scores = stack(view, None, records(300), knows)

    both = np.stack([view.signals.loss_global[-1], view.signals.loss_global.mean(axis=0)], axis=1)
    quantiles = ndtri((np.argsort(np.argsort(-both, axis=0), axis=0) + 0.5) / 300)
    weights, residual = np.linalg.lstsq(quantiles, scores, rcond=None)[:2]
    assert residual == pytest.approx(0, abs=1e-9)
    assert (weights != 0).all()
    with pytest.raises(NotApplicableError, match=r"the vantage serves yeom_loss$"):
        STACK(view, None, records(300), knows)


def test_shadow_federations_must_serve_the_same_components():
    with pytest.raises(NotApplicableError, match="that serves the same components"):
        ask(STACK, world(), knows=knowledge(federations=0))


def test_what_learning_needs_is_named():
    with pytest.raises(NotApplicableError, match="needs shadow training"):
        ask(STACK, world(), knows=known())
    with pytest.raises(NotApplicableError, match="needs known members"):
        ask(Ensemble(NAMES, "known"), world(), knows=knowledge())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: Ensemble(["yeom_loss", "yeom"]),
            f"components=yeom: expected some of {', '.join(COMPONENTS)}",
        ),
        (
            lambda: Ensemble(["yeom_loss", "yeom_loss"]),
            "components=['yeom_loss', 'yeom_loss']: expected at least two",
        ),
        (lambda: Ensemble(training="truth"), "training=truth: expected shadow or known"),
        (lambda: Ensemble(penalty=0.0), "penalty=0.0: expected more than 0"),
    ],
)
def test_settings_that_do_not_exist_are_refused(make, said):
    with pytest.raises(ConfigError) as caught:
        make()

    assert str(caught.value) == said
