"""Thresholds are bounded and noised as the account has it; the heuristic promises nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest
from dp_accounting import ComposedDpEvent, GaussianDpEvent, NeighboringRelation, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity
from scipy.stats import kstest

from clients.defenses.sensitivity_clip import DP_CLIP, SensitivityClip
from fedmia.arrays import to_params, to_record
from fedmia.errors import ConfigError
from fedmia.privacy.accounting import Account, Neighbours, Sampling, gaussian_release
from fedmia.privacy.claim import RELEASED, Claim, Claiming, Setting
from fedmia.privacy.tree import TreeAccount
from fedmia.records import difference

SENT = {"w": np.ones(8, np.float32), "seen": np.array(3, np.int64)}
SETTING = Setting((20,) * 10, 30)


ALL = Sampling()


def beside(z, secure=False, delta=1e-5, sampling=ALL):
    """Return the setting beside a strategy with this noise."""
    account = Account(gaussian_release(z, sampling), Neighbours.REPLACE_ONE, delta)
    return replace(SETTING, strategies=(Claim("client", account, RELEASED, secure=secure),))


@pytest.fixture(autouse=True)
def _identity():
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def ask(server_round=1, kind="train"):
    content = {"arrays": to_record(SENT), "config": ConfigRecord({"server-round": server_round})}
    return Message(RecordDict(content), 7, kind)


def context(partition_id=0, state=None):
    return Context(1, 7, {"partition-id": partition_id}, state or RecordDict(), {})


def trains(length):
    """Answers with an update of this norm, and metrics of its records."""

    def train(message, context):
        step = np.float32(length / math.sqrt(8))
        moved = {"w": SENT["w"] + step, "seen": SENT["seen"] + 5}
        told = MetricRecord({"num-examples": 20, "train-loss": 0.25})
        return Message(RecordDict({"arrays": to_record(moved), "metrics": told}), reply_to=message)

    return train


def answer(mod, length, at=None, server_round=1):
    """Return the bound that goes with an answer, and the norm of its update as it is read."""
    reply = mod(ask(server_round), at or context(), trains(length))
    delta = difference(to_params(reply.content["arrays"]), SENT)
    return reply.content["metrics"][DP_CLIP], float(np.linalg.norm(delta["w"].astype(float)))


def series(mod, lengths, fresh=True):
    at, bounds = context(), []
    for server_round, length in enumerate(lengths, start=1):
        at = context(0, RecordDict(dict(at.state.items()))) if fresh else at
        bounds.append(answer(mod, length, at, server_round)[0])
    return bounds


# released


def test_the_update_keeps_the_bound_that_goes_with_it_and_the_bound_its_range():
    mod = SensitivityClip(low=0.1, clip=2.0, release_multiplier=0.5)
    for seed in range(100):
        bound, length = answer(mod, 10.0 ** (seed % 7 - 4), server_round=seed)
        assert 0.1 <= bound <= 2.0
        assert length <= bound


def test_a_zero_update_has_the_least_norm_of_the_range():
    mod = SensitivityClip(low=0.1, clip=1.0, release_multiplier=1e-9)
    assert answer(mod, 0.0) == (pytest.approx(0.1), 0.0)


def test_without_much_noise_the_threshold_is_the_norm_within_the_range():
    mod = SensitivityClip(low=0.1, clip=1.0, release_multiplier=1e-9)
    found = [answer(mod, length)[0] for length in (0.01, 0.3, 0.9, 5.0)]
    assert found == pytest.approx([0.1, 0.3, 0.9, 1.0], rel=1e-5)


@pytest.mark.parametrize("secure", [False, True])
def test_the_logarithm_of_a_threshold_is_normal_around_the_norms(secure):
    """z = 0.25 of half of ln(e⁴) is a standard deviation of 0.5; the ends are 4 of them away."""
    mod = SensitivityClip(
        low=math.exp(-2), clip=math.exp(2), release_multiplier=0.25, secure_noise=secure
    )
    found = [math.log(answer(mod, 1.0, server_round=t)[0]) for t in range(600)]
    assert kstest(found, "norm", args=(0.0, 0.5)).pvalue > 1e-3


def test_noise_far_wider_than_the_range_puts_thresholds_at_its_ends():
    mod = SensitivityClip(low=0.1, clip=1.0, release_multiplier=1e6)
    found = [answer(mod, 0.5, server_round=t)[0] for t in range(200)]
    assert set(found) == {0.1, 1.0}
    assert 60 < found.count(1.0) < 140


@pytest.mark.parametrize("length", [0.0, 1e-6, 1e6])
def test_a_norm_is_bounded_before_the_noise_that_hides_it(length):
    """The sensitivity is that of the range: from outside of it nothing more is to be seen."""
    mod = SensitivityClip(low=0.1, clip=1.0, release_multiplier=1.0)
    found = np.array([answer(mod, length, server_round=t)[0] for t in range(200)])
    assert 60 < np.count_nonzero((found > 0.1) & (found < 1.0 - 1e-9)) < 140


@pytest.mark.parametrize("fresh", [False, True])
def test_a_threshold_is_kept_for_so_many_participations(fresh):
    lengths = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    found = series(SensitivityClip(every=3, release_multiplier=1e-9), lengths, fresh)
    assert found == pytest.approx([0.2, 0.2, 0.2, 0.5, 0.5, 0.5, 0.8], rel=1e-5)


def test_noise_repeats_with_its_seed_and_differs_by_client_round_and_source():
    mod = SensitivityClip(release_multiplier=0.1)
    first, again = answer(mod, 0.4)[0], answer(mod, 0.4)[0]
    assert first == again
    others = (
        answer(mod, 0.4, server_round=2)[0],
        answer(mod, 0.4, context(1))[0],
        answer(SensitivityClip(release_multiplier=0.1, seed=1), 0.4)[0],
        answer(SensitivityClip(release_multiplier=0.1, secure_noise=True), 0.4)[0],
        answer(SensitivityClip(release_multiplier=0.1, secure_noise=True), 0.4)[0],
    )
    assert len({first, *others}) == 6


def test_nothing_of_the_client_leaves_beside_update_and_bound():
    for form in ("released", "heuristic"):
        reply = SensitivityClip(form)(ask(), context(), trains(1.0))
        assert set(reply.content) == {"arrays", "metrics"}
        assert set(reply.content["metrics"]) == {"num-examples", DP_CLIP}
        assert reply.content["metrics"]["num-examples"] == 1
        assert to_params(reply.content["arrays"])["seen"] == 3


def test_other_messages_and_errors_pass_and_cost_no_participation():
    mod, at = SensitivityClip(every=2, release_multiplier=1e-9), context()
    asked = ask(kind="query.partition")
    assert mod(asked, at, lambda m, c: m) is asked

    def fails(message, context):
        return Message(Error(5, "away"), reply_to=message)

    assert mod(ask(), at, fails).error.reason == "away"
    assert not at.state


# what it costs


def by_dp_accounting(z, release, rounds, every, delta):
    accountant = PLDAccountant(NeighboringRelation.REPLACE_ONE)
    events = [
        SelfComposedDpEvent(GaussianDpEvent(z), rounds),
        SelfComposedDpEvent(GaussianDpEvent(release), math.ceil(rounds / every)),
    ]
    accountant.compose(ComposedDpEvent(events))
    return accountant.get_epsilon(delta)


@pytest.mark.parametrize(("rounds", "every"), [(1, 1), (7, 3), (30, 10), (9, 50)])
def test_epsilon_is_that_of_all_thresholds_and_all_sums_together(rounds, every):
    mod = SensitivityClip(release_multiplier=8.0, every=every)
    (claim,) = mod.claims(beside(12.0))
    wanted = by_dp_accounting(12.0, 8.0, rounds, every, 1e-5)
    assert claim.account.epsilon(rounds) == pytest.approx(wanted, rel=1e-3)
    assert claim.account.epsilon_rdp(rounds) >= claim.account.epsilon(rounds)


@pytest.mark.parametrize(
    "sampling", [Sampling("poisson", rate=0.1), Sampling("fixed", sample=1, population=10)]
)
def test_noise_delta_and_source_are_the_strategys_and_its_sampling_counts_for_nothing(sampling):
    mod = SensitivityClip(release_multiplier=8.0, secure_noise=True)
    (claim,) = mod.claims(beside(3.0, secure=True, delta=1e-3, sampling=sampling))
    assert claim.account.delta == 1e-3
    wanted = by_dp_accounting(3.0, 8.0, 4, mod.every, 1e-3)
    assert claim.account.epsilon(4) == pytest.approx(wanted, rel=1e-3)
    assert claim.secure
    assert not mod.claims(beside(3.0, secure=False))[0].secure


def test_without_an_account_of_every_rounds_sum_there_is_no_epsilon():
    tree = TreeAccount(12.0, 30, 1, None, Neighbours.REPLACE_ONE, 1e-5)
    for claims in ((), (Claim("client", tree, RELEASED),)):
        (claim,) = SensitivityClip().claims(replace(SETTING, strategies=claims))
        assert claim.account is None
        assert claim.reasons[0].startswith("no ε: the sum has no noise")


def test_the_release_of_a_threshold_has_the_noise_that_is_accounted_for():
    """Replaced, a client moves ln C by ln(clip/low) at most: σ of it is z/2 of that, so μ = 2/z."""
    mod = SensitivityClip(low=0.5, clip=4.0, release_multiplier=6.0)
    std = 6.0 * math.log(8.0) / 2
    released = mod.claims(beside(12.0))[0].account.thresholds(1)
    assert released.neighbours is Neighbours.REPLACE_ONE
    assert math.sqrt(released.release.precision) * 2 == pytest.approx(math.log(8.0) / std)


def test_the_claim_is_of_the_whole_under_replacement_alone():
    mod = SensitivityClip()
    assert isinstance(mod, Claiming)
    (claim,) = mod.claims(beside(12.0))
    assert (claim.unit, claim.per_participation) == ("client", True)
    assert claim.holds_against == RELEASED
    assert claim.account.under(Neighbours.REPLACE_ONE) == claim.account
    assert claim.account.under(Neighbours.ADD_REMOVE) is None
    assert claim.account.epsilon(0) == 0.0
    assert mod.replaces_claims
    assert mod.needs_open_updates
    assert not mod.voids_epsilon


def test_thresholds_without_noise_on_the_sum_promise_nothing_finite():
    account = SensitivityClip().claims(beside(0.0))[0].account
    assert account.epsilon(1) == math.inf


# heuristic


@pytest.mark.parametrize("fresh", [False, True])
def test_the_heuristic_threshold_is_a_quantile_of_the_norms_before(fresh):
    mod = SensitivityClip("heuristic", low=0.25, clip=1.0, quantile=0.5)
    found = series(mod, [0.3, 0.5, 0.1, 0.1, 0.1, 7.0], fresh)
    assert found == pytest.approx([1.0, 0.3, 0.4, 0.3, 0.25, 0.25], rel=1e-5)


def test_the_heuristic_promises_nothing_and_says_why():
    mod = SensitivityClip("heuristic")
    (claim,) = mod.claims(beside(12.0))
    assert claim.account is None
    assert claim.holds_against == ()
    assert claim.reasons[0].startswith("no ε: the thresholds")
    assert mod.voids_epsilon
    assert not mod.adds_noise
    assert not mod.replaces_claims


# settings


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"form": "smooth"}, "form=smooth: expected one of released, heuristic"),
        ({"low": 0.0}, "low=0.0: expected more than 0 and finite"),
        ({"low": 1.0}, "clip=1.0: expected more than low=1.0 and finite"),
        ({"clip": math.inf}, "clip=inf: expected more than low=0.1 and finite"),
        ({"every": 0}, "every=0: expected at least 1"),
        ({"release_multiplier": 0}, "release_multiplier=0: expected more than 0 and finite"),
        ({"quantile": 1.5}, "quantile=1.5: expected in [0, 1]"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused_before_any_training(settings, line):
    with pytest.raises(ConfigError) as caught:
        SensitivityClip(**settings)
    assert str(caught.value) == line
