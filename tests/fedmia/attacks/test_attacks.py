"""What holds for each attack: hand-worked scores, direction, a planted leak and a null."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fedmia.attacks.aggregate_cosine import AggregateCosine
from fedmia.attacks.avg_cosine import AvgCosine
from fedmia.attacks.base import Attack, Knowledge, NotApplicableError, View
from fedmia.attacks.fedmia import FedMIA
from fedmia.attacks.loss_series import LossSeries
from fedmia.attacks.yeom_loss import YeomLoss
from fedmia.errors import ConfigError
from fedmia.membership import Membership
from fedmia.metrics import auc, tpr_at_fpr
from fedmia.records import Capability, Examples, Observation, Update, difference, implied
from fedmia.signals import Signals
from fedmia.training import FlatModel, LocalSGD
from fedmia.transcript import Transcript, TranscriptWriter
from fedmia.vantages import Aggregate, FinalModel, MaskedServer, Participant, Server

ATTACKS = {
    "yeom_loss global": YeomLoss(),
    "yeom_loss local": YeomLoss("local"),
    "loss_series local": LossSeries(),
    "loss_series global": LossSeries("global"),
    "avg_cosine": AvgCosine(),
    "aggregate_cosine global": AggregateCosine(),
    "fedmia cosine": FedMIA(),
    "fedmia loss": FedMIA("loss"),
    "fedmia logit_gap": FedMIA("logit_gap", "mad"),
}
PER_CLIENT = {k: a for k, a in ATTACKS.items() if "global" not in k}

every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
per_client = pytest.mark.parametrize("attack", PER_CLIENT.values(), ids=PER_CLIENT)


# signals made by hand


def view(nodes=(10, 20, 30), present=None, kind=Server, **signals):
    """Return a view of signals of shape (rounds, clients, n), or (rounds, n) for global ones."""
    signals = {k: np.asarray(v, dtype=np.float64) for k, v in signals.items()}
    rounds = len(next(iter(signals.values())))
    if present is None:
        present = np.ones((rounds, len(nodes)), dtype=bool)
    made = SimpleNamespace(nodes=nodes, present=np.array(present, dtype=bool), **signals)
    where = {"vantage": kind.name, "shows": kind.shows, "hides_updates": kind.hides_updates}
    return View(SimpleNamespace(**where), made)


def ask(attack, seen, target=10, n=None):
    shape = next(v.shape for k, v in vars(seen.signals).items() if k not in ("nodes", "present"))
    n = shape[-1] if n is None else n
    records = Examples(np.zeros((n, 1), np.float32), np.zeros(n, np.int64))
    return attack(seen, target, records, Knowledge(records[:0], 2))


def test_yeom_takes_the_last_global_model_for_every_target():
    seen = view(loss_global=[[1.0, 2.0], [0.25, 4.0]])

    assert ask(YeomLoss(), seen).tolist() == [-0.25, -4.0]
    assert ask(YeomLoss(), seen, target=30).tolist() == [-0.25, -4.0]
    assert ask(YeomLoss(), seen, target=None).tolist() == [-0.25, -4.0]


def test_yeom_takes_the_last_local_model_that_the_target_sent():
    loss = [
        [[1.0, 2.0], [5, 5], [6, 6]],
        [[0.5, 3.0], [7, 7], [8, 8]],
        [[np.nan] * 2, [9, 9], [4, 3]],
    ]
    present = [[1, 1, 1], [1, 1, 1], [0, 1, 1]]
    seen = view(loss_local=loss, present=present)

    assert ask(YeomLoss("local"), seen).tolist() == [-0.5, -3.0]
    assert ask(YeomLoss("local"), seen, target=30).tolist() == [-4.0, -3.0]


def test_loss_series_is_the_mean_over_the_rounds_that_the_target_took_part_in():
    loss = [[[1.0, 2.0], [7, 7]], [[np.nan] * 2, [7, 7]], [[0.5, 4.0], [7, 7]]]
    seen = view((10, 20), loss_local=loss, present=[[1, 1], [0, 1], [1, 1]])

    assert ask(LossSeries(), seen).tolist() == [-0.75, -3.0]
    assert ask(LossSeries(), seen, target=20).tolist() == [-7.0, -7.0]


def test_loss_series_over_global_models_is_the_mean_over_all_of_them():
    seen = view(loss_global=[[1.0, 2.0], [0.5, 4.0], [0.0, 3.0]])

    assert ask(LossSeries("global"), seen, target=None).tolist() == [-0.5, -3.0]


def test_avg_cosine_is_the_mean_over_the_rounds_that_the_target_took_part_in():
    cosine = [[[0.25, -1.0], [1, 1]], [[np.nan] * 2, [1, 1]], [[0.75, 0.5], [1, 1]]]
    seen = view((10, 20), cosine=cosine, present=[[1, 1], [0, 1], [1, 1]])

    assert ask(AvgCosine(), seen).tolist() == [0.5, -0.25]


def test_aggregate_cosine_is_the_mean_over_the_rounds_whose_next_model_was_seen():
    seen = view(aggregate_cosine=[[0.25, -1.0], [np.nan] * 2, [0.75, 0.5], [np.nan] * 2])

    for target in (10, 30, None):
        assert ask(AggregateCosine(), seen, target).tolist() == [0.5, -0.25]


@pytest.mark.parametrize("rows", [[], [[np.nan] * 2]], ids=["no round", "no next model"])
def test_aggregate_cosine_needs_two_models_in_a_row(rows):
    seen = view(aggregate_cosine=np.reshape(rows, (-1, 2)))

    with pytest.raises(NotApplicableError, match="needs a round whose next model was seen"):
        ask(AggregateCosine(), seen)


# FedMIA by hand: three clients, two rounds, so that two others make up Q_out
#
#            target  others        mu   sigma   z
# record 0   .5      .1   .3      .2   .1      3        round 1
#            .0     -.2   .6      .2   .4     -0.5      round 2
# record 1   .2001   .2   .2      .2   1e-4    1        round 1, the floor of the variance
#            .4      .0   .4      .2   .2      1        round 2
PHI = {3: 0.9986501019683699, -0.5: 0.3085375387259869, 1: 0.8413447460685429}
M = [
    [[0.5, 0.2001], [0.1, 0.2], [0.3, 0.2]],
    [[0.0, 0.4], [-0.2, 0.0], [0.6, 0.4]],
]


@pytest.mark.parametrize(
    ("measurement", "signal", "sign"),
    [("cosine", "cosine", 1), ("loss", "loss_local", -1), ("logit_gap", "logit_gap_local", 1)],
)
@pytest.mark.parametrize("outlier_filter", ["three_sigma", "mad", "none"])
def test_fedmia_is_the_mean_of_phi_worked_out_by_hand(measurement, signal, sign, outlier_filter):
    seen = view(**{signal: sign * np.array(M)})

    scores = ask(FedMIA(measurement, outlier_filter), seen)

    assert scores[0] == pytest.approx((PHI[3] + PHI[-0.5]) / 2, abs=1e-12)
    assert scores[1] == pytest.approx(PHI[1], abs=1e-9)


def test_fedmia_of_another_target_takes_the_first_as_one_of_the_others():
    # round 1: (.1 − .4)/.1 = −3; round 2: (−.2 − .3)/.3 = −5/3
    scores = ask(FedMIA(), view(cosine=M), target=20)

    assert scores[0] == pytest.approx((1 - PHI[3] + 0.0477903522728147) / 2, abs=1e-12)


@pytest.mark.parametrize(
    "present", [[[1, 1, 1], [0, 1, 1]], [[1, 1, 1], [1, 0, 1]], [[1, 1, 1], [1, 0, 0]]], ids=str
)
def test_fedmia_leaves_out_rounds_without_the_target_or_with_one_other(present):
    seen = view(cosine=M, present=present)
    seen.signals.cosine[~seen.signals.present] = np.nan

    assert ask(FedMIA(), seen)[0] == pytest.approx(PHI[3], abs=1e-12)


def filtered(others, target, outlier_filter):
    nodes = tuple(range(len(others) + 1))
    seen = view(nodes, cosine=[[[target], *[[value] for value in others]]])
    return ask(FedMIA("cosine", outlier_filter), seen, target=0)[0]


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.7, 1e-3, 123.0])
@pytest.mark.parametrize("offset", [0.0, 0.1, -0.3])
@pytest.mark.parametrize("others", range(2, 11))
def test_three_sigma_cannot_drop_anyone_among_fewer_than_eleven(others, offset, scale):
    values = offset + np.array([0.0] * (others - 1) + [scale])

    assert filtered(values, 0.2, "three_sigma") == filtered(values, 0.2, "none")


def test_three_sigma_drops_a_high_value_among_twelve():
    values = [0.0] * 11 + [1.0]  # z = √11 > 3; without it nothing but the floor is left

    assert filtered(values, 1e-4, "three_sigma") == pytest.approx(PHI[1])
    assert filtered(values, 1e-4, "none") < 0.5


def test_mad_drops_a_high_value_among_four():
    # median .15, MAD .1: limit .595; left are 0, .1, .2 with mean .1 and variance .02/3
    sigma = np.sqrt(0.02 / 3)

    assert filtered([0.0, 0.1, 0.2, 5.0], 0.1 + sigma, "mad") == pytest.approx(PHI[1])
    assert filtered([0.0, 0.1, 0.2, 5.0], 0.1 + sigma, "none") < 0.5


@pytest.mark.parametrize("outlier_filter", ["three_sigma", "mad"])
def test_low_values_are_not_taken_for_other_members(outlier_filter):
    values = [0.0] * 11 + [-1.0]

    assert filtered(values, 0.1, outlier_filter) == filtered(values, 0.1, "none")


@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3, -0.1, 1e-9, 0.0, 12345.678])
@pytest.mark.parametrize("others", [2, 3, 9, 11, 49])
@pytest.mark.parametrize("outlier_filter", ["three_sigma", "mad", "none"])
def test_equal_values_are_no_outliers_of_each_other(others, value, outlier_filter):
    assert filtered([value] * others, value, outlier_filter) == pytest.approx(0.5, abs=1e-4)


def test_others_who_hold_the_record_too_no_longer_hide_the_target():
    values = [0.0, 0.1] * 6 + [5.0]

    assert filtered(values, 0.5, "three_sigma") > filtered(values, 0.5, "none")


@pytest.mark.parametrize("name", ["loss", "logit_gap", "cosine"])
def test_fedmia_looks_at_no_other_measurement(name):
    signal = {"cosine": "cosine"}.get(name, f"{name}_local")

    assert ask(FedMIA(name), view(**{signal: M})).shape == (2,)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FedMIA("grad"), "measurement=grad: expected one of loss, logit_gap, cosine"),
        (
            lambda: FedMIA("loss", "two_sigma"),
            "outlier_filter=two_sigma: expected one of three_sigma, mad, none",
        ),
        (lambda: YeomLoss("best"), "model=best: expected global or local"),
        (lambda: LossSeries("best"), "model=best: expected global or local"),
    ],
)
def test_settings_that_do_not_exist_are_refused(make, said):
    with pytest.raises(ConfigError) as caught:
        make()

    assert str(caught.value) == said


# higher means member


@every_attack
def test_a_record_that_the_model_moved_towards_scores_higher(attack):
    """Record 0 has the smaller loss, the larger gap and the better aligned gradient."""
    rounds, clients, n = 4, 5, 2
    noise = np.random.default_rng(0).normal(scale=0.05, size=(3, rounds, clients, n))
    loss, gap, cosine = 2.0 + noise[0], noise[1], noise[2]
    loss[:, 0, 0] -= 1
    gap[:, 0, 0] += 1
    cosine[:, 0, 0] += 0.5
    seen = view(
        range(clients),
        loss_local=loss,
        logit_gap_local=gap,
        cosine=cosine,
        loss_global=[[1.0, 2.0]] * rounds,
        aggregate_cosine=cosine.mean(axis=1),
    )

    member, other = ask(attack, seen, target=0)

    assert member > other


# what an attack cannot do, it says


@per_client
@pytest.mark.parametrize("kind", [Aggregate, Participant, FinalModel], ids=lambda kind: kind.name)
def test_a_vantage_without_updates_is_told_what_is_missing(attack, kind):
    seen = view(loss_global=[[1.0]], kind=kind)

    with pytest.raises(NotApplicableError, match="needs client updates") as caught:
        ask(attack, seen)

    assert f"vantage '{kind.name}' shows " in str(caught.value)


@per_client
def test_a_server_that_sees_only_sums_is_told_which_defence_hides_the_rest(attack):
    seen = view(loss_global=[[1.0]], kind=MaskedServer("secagg_plus"))

    with pytest.raises(NotApplicableError) as caught:
        ask(attack, seen)

    assert str(caught.value).startswith("needs client updates, ")
    assert str(caught.value).endswith(", vantage 'server' under secagg_plus shows only their sum")


def test_the_reason_under_secure_aggregation_is_one_line():
    vantage = MaskedServer("secagg_plus")

    with pytest.raises(NotApplicableError) as caught:
        YeomLoss("local").check_applicable(vantage.name, vantage.shows, vantage.hides_updates)

    assert str(caught.value) == (
        "needs client updates, vantage 'server' under secagg_plus shows only their sum"
    )


@pytest.mark.parametrize("kind", [Aggregate(), MaskedServer("secagg_plus")], ids=str)
@pytest.mark.parametrize("attack", [YeomLoss(), LossSeries("global"), AggregateCosine()], ids=str)
def test_attacks_on_the_sum_find_the_leak_where_no_update_is_seen(federation, attack, kind):
    narrow = federation.transcript.through(kind.name, kind.shows, kind.view, kind.hides_updates)
    candidates = federation.records[: CLIENTS * EACH + 400]
    seen = View(narrow, Signals(narrow, federation.model, candidates, None))
    members = np.arange(len(candidates)) < CLIENTS * EACH

    scores = attack(seen, None, candidates, Knowledge(candidates[:0], 2))

    assert auc(scores, members) > 0.6


def test_the_text_lists_everything_that_is_missing_and_everything_that_is_shown():
    with pytest.raises(NotApplicableError) as caught:
        FedMIA().check_applicable("final_model", FinalModel.shows)

    assert str(caught.value) == (
        "needs client updates, several rounds, updates of several clients; "
        "vantage 'final_model' shows the global model"
    )
    with pytest.raises(NotApplicableError, match="vantage 'void' shows nothing"):
        YeomLoss().check_applicable("void", frozenset())


def test_attacks_on_global_models_need_no_updates():
    YeomLoss().check_applicable("final_model", FinalModel.shows)
    LossSeries("global").check_applicable("participant", Participant.shows)
    with pytest.raises(NotApplicableError, match="needs several rounds"):
        LossSeries("global").check_applicable("final_model", FinalModel.shows)


@per_client
@pytest.mark.parametrize("target", [None, 99], ids=["nobody in particular", "unseen"])
def test_a_target_whose_updates_were_not_seen_is_not_guessed_at(attack, target):
    seen = view(cosine=M, loss_local=M, logit_gap_local=M)

    with pytest.raises(NotApplicableError, match="none of this target was seen"):
        ask(attack, seen, target)


@per_client
def test_a_target_that_has_not_taken_part_yet_is_not_applicable(attack):
    present = [[0, 1, 1], [0, 1, 1]]
    seen = view(cosine=M, loss_local=M, logit_gap_local=M, present=present)

    with pytest.raises(NotApplicableError, match="round"):
        ask(attack, seen)


def test_fedmia_needs_two_others():
    seen = view((10, 20), cosine=np.array(M)[:, :2])

    with pytest.raises(NotApplicableError, match="two other clients"):
        ask(FedMIA(), seen)


@dataclass(frozen=True)
class Returning(Attack):
    value: object

    needs = frozenset({Capability.GLOBAL_MODEL})
    reference = "nobody"

    def score(self, view, target, candidates, knowledge):
        return self.value


def test_a_score_a_candidate_comes_back_in_double_precision():
    scores = ask(Returning([1, 2]), view(loss_global=[[0.0, 0.0]]))

    assert scores.dtype == np.float64
    assert scores.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("shape", [(3,), (2, 1), (1, 2), ()], ids=str)
def test_scores_of_the_wrong_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"Returning returned shape .*, expected \(2,\)"):
        ask(Returning(np.zeros(shape)), view(loss_global=[[0.0, 0.0]]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_refused_and_the_candidate_named(value):
    with pytest.raises(FloatingPointError, match="score of candidate 1 is"):
        ask(Returning([0.0, value]), view(loss_global=[[0.0, 0.0]]))


# a federation that really was trained

CLIENTS, EACH, ROUNDS, FEATURES = 8, 20, 8, 12


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """Clients whose labels are pure chance, so that all that can be learnt is who was there."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rng, path = np.random.default_rng(1), tmp_path_factory.mktemp("run") / "transcript"
    total = CLIENTS * EACH + 800
    records = Examples(
        rng.normal(size=(total, FEATURES)).astype(np.float32), rng.integers(2, size=total)
    )
    torch.manual_seed(0)
    model = FlatModel(nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, 2)))
    recipe, writer = LocalSGD(3, 5, 0.1), TranscriptWriter(path, "server", Server.shows)
    params, nodes = model.params(), tuple(range(100, 100 + CLIENTS))
    for t in range(1, ROUNDS + 1):
        updates = []
        for k, node in enumerate(nodes):
            own = records[k * EACH : (k + 1) * EACH]
            model.load(params)
            recipe.fit(model, torch.tensor(own.x), torch.tensor(own.y), rng)
            updates.append(Update(node, EACH, difference(model.params(), params)))
        writer.append(Observation(t, params, nodes, tuple(updates)))
        params = {
            name: value + np.mean([u.delta[name] for u in updates], axis=0)
            for name, value in params.items()
        }
    writer.finish(params)
    yield SimpleNamespace(
        transcript=Transcript(path), model=model.module, records=records, nodes=nodes
    )
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def members(federation):
    """All members and 400 records that nobody held."""
    return signals_of(federation, np.arange(CLIENTS * EACH + 400))


@pytest.fixture(scope="module")
def strangers(federation):
    """The null: nobody held any of the records, some are said to be members."""
    return signals_of(federation, np.arange(CLIENTS * EACH, CLIENTS * EACH + 800))


def signals_of(federation, index):
    candidates = federation.records[index]
    signals = Signals(federation.transcript, federation.model, candidates, None)
    owner = np.repeat([*range(CLIENTS), -1], [EACH] * CLIENTS + [len(index) - CLIENTS * EACH])
    return View(federation.transcript, signals), candidates, owner


def measure(attack, nodes, case):
    seen, candidates, owner = case
    knowledge = Knowledge(candidates[:0], 2)
    scores = np.stack([attack(seen, node, candidates, knowledge) for node in nodes])
    rng = np.random.default_rng(0)
    return scores, Membership(bootstrap=100).evaluate(scores, owner, candidates.y, rng)


@every_attack
def test_a_planted_leak_is_found(federation, members, attack):
    scores, row = measure(attack, federation.nodes, members)

    assert row["auc_ci"][0] > 0.55
    if attack in PER_CLIENT.values():
        assert row["auc"] > 0.75
        # a client's own records score higher than those of the others
        assert row["other_members"]["auc"] > 0.6
    assert len(np.unique(scores)) > 200


@every_attack
def test_records_that_nobody_trained_on_are_not_found(federation, strangers, attack):
    _, row = measure(attack, federation.nodes, strangers)

    low, high = row["auc_ci"]
    assert low <= 0.5 <= high
    assert high - low < 0.2
    assert row["tpr_at_fpr"]["0.01"] < 0.05
    assert row["tpr_ci"]["0.01"][0] <= 0.01


@per_client
def test_drawing_new_non_members_in_each_round_would_fake_a_leak(federation, strangers, attack):
    """The released code of FedMIA does so: what a record's scores have in common is averaged
    away for non-members alone, so that any outlying record passes for a member.
    """
    if isinstance(attack, YeomLoss):
        pytest.skip("one round cannot be redrawn")
    seen, candidates, owner = strangers
    knowledge, rng = Knowledge(candidates[:0], 2), np.random.default_rng(0)
    by_round = np.stack(
        [
            [attack(one_round(seen, t), node, candidates, knowledge) for node in federation.nodes]
            for t in range(ROUNDS)
        ]
    )
    pseudo = np.flatnonzero(owner >= 0)
    fixed = np.flatnonzero(owner == -1)
    redrawn = np.stack([by_round[t][:, rng.permutation(fixed)] for t in range(ROUNDS)]).mean(0)
    honest = by_round[:, :, fixed].mean(0)
    inside = by_round[:, :, pseudo].mean(0).ravel()

    def rate(outside):
        scores = np.concatenate([inside, outside.ravel()])
        return tpr_at_fpr(scores, np.arange(scores.size) < inside.size, 0.01)

    assert rate(honest) < 0.03
    assert rate(redrawn) > 2 * rate(honest) + 0.03


def one_round(seen, t):
    arrays = {k: getattr(seen.signals, k)[t : t + 1] for k in ("cosine", "loss_local", "present")}
    arrays["logit_gap_local"] = seen.signals.logit_gap_local[t : t + 1]
    return View(seen.transcript, SimpleNamespace(nodes=seen.signals.nodes, **arrays))


@every_attack
def test_scores_depend_on_the_record_alone_and_not_on_its_neighbours(federation, members, attack):
    seen, candidates, _ = members
    some = np.array([200, 3, 77, 41])
    alone = Signals(federation.transcript, federation.model, candidates[some], None)
    knowledge, node = Knowledge(candidates[:0], 2), federation.nodes[2]

    apart = attack(View(federation.transcript, alone), node, candidates[some], knowledge)

    together = attack(seen, node, candidates, knowledge)[some]
    assert np.allclose(apart, together, rtol=1e-4, atol=1e-5)


@every_attack
def test_narrowing_the_view_takes_the_attack_away_or_leaves_it_whole(federation, attack):
    """No attack runs on less than it says it needs."""
    participant = Participant(federation.nodes[0])
    narrow = federation.transcript.through("participant", participant.shows, participant.view)
    candidates = federation.records[:50]
    seen = View(narrow, Signals(narrow, federation.model, candidates, None))

    if attack.requirements() <= implied(participant.shows):
        assert attack(seen, None, candidates, Knowledge(candidates[:0], 2)).shape == (50,)
    else:
        with pytest.raises(NotApplicableError):
            attack(seen, None, candidates, Knowledge(candidates[:0], 2))


# signals as they were earlier


def test_earlier_signals_are_the_first_rows_and_share_what_was_computed(federation, members):
    seen, _, _ = members
    whole = seen.signals
    early = whole.until(3)

    assert early.rounds == whole.rounds[:3]
    assert early.rounds_global == (1, 2, 3, 4), "the server knows what came of the third round"
    for name in ("loss_local", "logit_gap_local", "cosine", "present"):
        assert np.array_equal(getattr(early, name), getattr(whole, name)[:3]), name
    for name in ("loss_global", "grad_norm"):
        assert np.array_equal(getattr(early, name), getattr(whole, name)[:4]), name
    assert len(whole.loss_global) == ROUNDS + 1
    assert np.shares_memory(early.loss_local, whole.loss_local)


def test_presence_says_who_answered_in_which_round(tmp_path, federation):
    writer = TranscriptWriter(tmp_path, "server", Server.shows)
    for t, who in enumerate([(100, 102), (102,), (101, 102)], start=1):
        seen = federation.transcript[t - 1]
        kept = tuple(u for u in seen.updates if u.node_id in who)
        writer.append(Observation(t, seen.params, federation.nodes, kept))

    signals = Signals(Transcript(tmp_path), federation.model, federation.records[:5], None)

    assert signals.nodes == (100, 101, 102)
    assert signals.present.tolist() == [[1, 0, 1], [0, 0, 1], [0, 1, 1]]
    assert np.isnan(signals.loss_local[~signals.present]).all()
    assert np.isfinite(signals.loss_local[signals.present]).all()
    assert np.isnan(signals.cosine[~signals.present]).all()


@per_client
def test_partial_participation_gives_finite_scores(tmp_path, federation, attack):
    writer, rng = TranscriptWriter(tmp_path, "server", Server.shows), np.random.default_rng(0)
    for seen in federation.transcript:
        kept = tuple(u for u in seen.updates if rng.random() < 0.6)
        writer.append(Observation(seen.round, seen.params, federation.nodes, kept))
    transcript, candidates = Transcript(tmp_path), federation.records[: CLIENTS * EACH + 400]
    case = (View(transcript, Signals(transcript, federation.model, candidates, None)), candidates)
    owner = np.repeat([*range(CLIENTS), -1], [EACH] * CLIENTS + [400])

    _, row = measure(attack, federation.nodes, (*case, owner))

    assert row["auc"] > 0.7
