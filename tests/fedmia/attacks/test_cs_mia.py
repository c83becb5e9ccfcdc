"""CS-MIA: series, the network taught by shadow federations, and what it is told apart by."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedmia.attacks.base import Knowledge, NotApplicableError, View
from fedmia.attacks.cs_mia import CSMIA
from fedmia.attacks.series import resample
from fedmia.errors import ConfigError
from fedmia.knowledge import ShadowFederation
from fedmia.metrics import auc
from fedmia.records import Examples
from fedmia.vantages import Participant, Server

CLIENTS, EACH = 4, 15


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Shadows:
    """Federations made by hand."""

    seconds = 0.0

    def __init__(self, *federations):
        self.kept = federations

    def transcripts(self):
        return self.kept


def examples(n):
    return Examples(np.arange(n, dtype=np.float32)[:, None], np.zeros(n, np.int64))


def federation(seed, leak, n=300, rounds=6, shape="constant", clients=CLIENTS):
    """Return a view and owners; members' entropy is ``e^{−leak}`` times what it would be.

    With shape ``turning`` it is so in the first half and the other way round in the second, so
    that the mean of the logarithms says nothing.
    """
    rng = np.random.default_rng(seed)
    owner = np.repeat([*range(clients), -1], [EACH] * clients + [n - clients * EACH])
    owner = rng.permutation(owner)
    way = np.ones(rounds) if shape == "constant" else np.repeat([1.0, -1.0], rounds // 2)
    member = owner == np.arange(clients)[:, None]
    log = rng.normal(size=(rounds, clients, n)) - leak * way[:, None, None] * member
    log_global = rng.normal(size=(rounds + 1, n)) - leak * (owner >= 0)
    signals = SimpleNamespace(
        nodes=tuple(range(10, 10 + clients)),
        present=np.ones((rounds, clients), bool),
        mentr_local=np.exp(log),
        loss_local=np.exp(log),
        logit_gap_local=-log,
        mentr_global=np.exp(log_global),
    )
    transcript = SimpleNamespace(vantage="server", shows=frozenset(Server.shows), hides_updates="")
    return View(transcript, signals), owner


def knowledge(leak, seed=0, **settings):
    kept = []
    for i in range(2):
        view, owner = federation(100 + i, leak, **settings)
        kept.append(ShadowFederation(view, examples(len(owner)), view.signals.nodes, owner))
    return Knowledge(examples(0), 2, shadows=Shadows(*kept), seed=seed)


def measured(attack, leak, taught, **settings):
    view, owner = federation(1, leak, **settings)
    known, records = knowledge(taught, **settings), examples(len(owner))
    scores = np.stack([attack(view, node, records, known) for node in view.signals.nodes])
    inside = owner == np.arange(CLIENTS)[:, None]
    keep = inside | (owner == -1)
    return auc(scores[keep], inside[keep])


def test_resampling_keeps_both_ends_and_is_linear_between():
    series = np.array([[0.0, 1.0], [2.0, 1.0], [3.0, -1.0]])

    assert resample(series, 5).T.tolist() == [[0, 1, 2, 2.5, 3], [1, 1, 1, 0, -1]]
    assert resample(series, 3).tolist() == series.tolist()
    assert resample(series, 2).tolist() == [[0, 1], [3, -1]]
    assert resample(series, 1).tolist() == [[3, -1]]
    assert resample(series[:1], 3).tolist() == [[0, 1]] * 3


@pytest.mark.parametrize(("rounds", "length"), [(0, 3), (3, 0)])
def test_nothing_is_resampled_from_or_to_nothing(rounds, length):
    with pytest.raises(ValueError, match=f"cannot bring {rounds} rounds to {length}"):
        resample(np.zeros((rounds, 2)), length)


def test_the_mean_is_that_of_the_rounds_that_the_target_took_part_in():
    entropy = [[[1.0, 2.0], [7, 7]], [[np.nan] * 2, [7, 7]], [[0.5, 4.0], [7, 7]]]
    signals = SimpleNamespace(
        nodes=(10, 20),
        present=np.array([[1, 1], [0, 1], [1, 1]], bool),
        mentr_local=np.array(entropy),
        logit_gap_local=np.array(entropy),
        mentr_global=np.array([[1.0, 2.0], [0.0, 4.0]]),
    )
    shows = frozenset(Server.shows) - {"shadow training"}
    view = View(SimpleNamespace(vantage="server", shows=shows, hides_updates=""), signals)
    nothing = Knowledge(examples(0), 2)

    def ask(attack):
        return attack(view, 10, examples(2), nothing).tolist()

    assert ask(CSMIA(network=False)) == [-0.75, -3.0]
    assert ask(CSMIA("logit_gap", network=False)) == [0.75, 3.0]
    assert ask(CSMIA(model="global", network=False)) == [-0.5, -3.0]


@pytest.mark.parametrize("metric", ["mentr", "loss", "logit_gap"])
def test_a_planted_leak_is_found(metric):
    assert measured(CSMIA(metric), leak=1.0, taught=1.0) > 0.9


def test_the_network_sees_what_the_mean_does_not():
    attack = CSMIA("logit_gap")

    assert measured(attack, leak=1.0, taught=1.0, shape="turning") > 0.9
    plain = CSMIA("logit_gap", network=False)
    assert measured(plain, leak=1.0, taught=1.0, shape="turning") == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("taught", [0.0, 1.0])
def test_a_federation_without_a_leak_shows_none(taught):
    assert measured(CSMIA(), leak=0.0, taught=taught) == pytest.approx(0.5, abs=0.1)


def test_a_record_that_the_models_are_surer_of_scores_higher():
    view, _ = federation(1, 0.0, n=70)
    order = np.argsort(np.log(view.signals.mentr_local[:, 0]).mean(axis=0))
    view.signals.mentr_local[:, 0, order[0]] /= 10
    view.signals.mentr_local[:, 0, order[-1]] *= 10

    scores = CSMIA()(view, 10, examples(70), knowledge(1.0))

    assert scores[order[0]] > np.median(scores) > scores[order[-1]]


def test_global_series_have_the_members_of_all_clients():
    view, owner = federation(1, 1.0)
    attack, known = CSMIA(model="global"), knowledge(1.0)

    scores = [attack(view, target, examples(300), known) for target in (10, None)]

    assert auc(scores[0], owner >= 0) > 0.9
    assert scores[0].tolist() == scores[1].tolist()


def test_other_numbers_of_rounds_are_resampled():
    view, owner = federation(1, 1.0, rounds=9)
    view.signals.present[[1, 4], 0] = False
    view.signals.mentr_local[[1, 4], 0] = np.nan

    scores = CSMIA(length=4)(view, 10, examples(300), knowledge(1.0))

    assert auc(scores[(owner <= 0)], owner[owner <= 0] == 0) > 0.8


def test_scores_follow_the_order_of_the_candidates_and_are_the_same_twice():
    view, _ = federation(1, 1.0)
    order = np.random.default_rng(0).permutation(300)
    turned = SimpleNamespace(**vars(view.signals))
    turned.mentr_local = view.signals.mentr_local[..., order]

    once = CSMIA()(view, 10, examples(300), knowledge(1.0))
    again = CSMIA()(view, 10, examples(300), knowledge(1.0))
    permuted = CSMIA()(View(view.transcript, turned), 10, examples(300)[order], knowledge(1.0))

    assert once.tobytes() == again.tobytes()
    assert np.allclose(permuted, once[order], rtol=1e-4, atol=1e-5)
    assert not np.allclose(once, CSMIA()(view, 10, examples(300), knowledge(1.0, seed=1)))


def test_one_network_serves_all_targets_whatever_else_their_adversaries_know():
    view, _ = federation(1, 1.0)
    known = knowledge(1.0)
    asked = []
    shadows = known.shadows.transcripts
    known.shadows.transcripts = lambda: asked.append(1) or shadows()

    for node in view.signals.nodes:
        own = Knowledge(known.auxiliary, 2, shadows=known.shadows, seed=known.seed)
        CSMIA()(view, node, examples(300), own)

    assert len(asked) == 1


def test_the_network_is_taught_by_shadow_members_alone():
    """No membership in the attacked federation reaches the score: other owners, same scores."""
    view, owner = federation(1, 1.0)
    known = knowledge(1.0)
    lying = [
        ShadowFederation(f.view, f.candidates, f.nodes, np.roll(f.owner, 7))
        for f in known.shadows.transcripts()
    ]
    misled = Knowledge(known.auxiliary, 2, shadows=Shadows(*lying))

    right = CSMIA()(view, 10, examples(300), known)
    wrong = CSMIA()(view, 10, examples(300), misled)

    keep = (owner == 0) | (owner == -1)
    assert auc(right[keep], owner[keep] == 0) > auc(wrong[keep], owner[keep] == 0) + 0.1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"metric": "p"}, "metric=p: expected one of mentr, loss, logit_gap"),
        ({"model": "best"}, "model=best: expected local or global"),
        ({"length": 0}, "length=0: expected at least 1"),
        ({"epochs": 0}, "epochs=0: expected at least 1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: expected more than 0"),
    ],
)
def test_settings_that_do_not_exist_are_refused(settings, said):
    with pytest.raises(ConfigError) as caught:
        CSMIA(**settings)

    assert str(caught.value) == said


def test_what_is_missing_is_named():
    with pytest.raises(NotApplicableError, match="needs client updates"):
        CSMIA().check_applicable("participant", Participant.shows)
    with pytest.raises(NotApplicableError, match="needs shadow training, which"):
        CSMIA(model="global").check_applicable("participant", Participant.shows)
    CSMIA(model="global", network=False).check_applicable("participant", Participant.shows)

    view, _ = federation(1, 1.0)
    with pytest.raises(NotApplicableError, match="none of this target was seen"):
        CSMIA()(view, None, examples(300), knowledge(1.0))
    with pytest.raises(NotApplicableError, match=r"needs (shadow federations|shadow training)"):
        CSMIA()(view, 10, examples(300), Knowledge(examples(0), 2))
    with pytest.raises(NotApplicableError, match="with members and non-members"):
        CSMIA()(view, 10, examples(300), Knowledge(examples(0), 2, shadows=Shadows()))
