"""Noise fits the clip, ε fits the participations, and a spent budget keeps a client away."""

import math

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, NeighboringRelation, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from clients.defenses.hiding import contribution
from clients.defenses.local_dp import LocalDp
from clients.honest import DroppedOutError
from fedmia.arrays import to_params, to_record
from fedmia.errors import ConfigError
from fedmia.observe import ABSENT
from fedmia.privacy.accounting import Neighbours
from fedmia.privacy.claim import EVERYBODY, Claiming, Setting
from fedmia.records import difference
from fedmia.secagg.codec import Codec, flatten
from fedmia.secagg.errors import ProtocolError

SETTING = Setting((20,) * 10, 30)


@pytest.fixture(autouse=True)
def _identity():
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def model(d=1000):
    return {
        "w": np.linspace(-1, 1, d, dtype=np.float32),
        "seen": np.array(3, np.int64),
        "b": np.ones(d, np.float32),
    }


def ask(server_round=1, kind="train", params=None):
    content = {"arrays": to_record(params or model())}
    content["config"] = ConfigRecord({"server-round": server_round})
    return Message(RecordDict(content), 7, kind)


def context(partition_id=0, state=None):
    return Context(1, 7, {"partition-id": partition_id}, state or RecordDict(), {})


def copied(at):
    """The client in a fresh process, with what it kept."""
    return context(at.node_config["partition-id"], RecordDict(dict(at.state.items())))


def trains(step=0.0):
    """Answers with every coordinate moved by one step, and metrics of its records."""

    def train(message, context):
        params = to_params(message.content["arrays"])
        moved = {k: v + v.dtype.type(step) for k, v in params.items()}
        told = MetricRecord({"num-examples": 20, "train-loss": 0.25})
        return Message(RecordDict({"arrays": to_record(moved), "metrics": told}), reply_to=message)

    return train


def read(mod, server_round=1, at=None, step=0.0, params=None):
    asked = ask(server_round, params=params)
    sent = to_params(asked.content["arrays"])
    reply = mod(asked, at or context(), trains(step))
    return flatten(difference(to_params(reply.content["arrays"]), sent))


# what leaves


@pytest.mark.parametrize("secure", [False, True])
def test_the_noise_has_its_multiplier_times_the_clip_in_every_coordinate(secure):
    for clip, z in ((1.0, 2.0), (0.5, 3.0)):
        mod = LocalDp(clip, noise_multiplier=z, epsilon=None, secure_noise=secure)
        found = read(mod, params=model(50_000)).astype(np.float64)
        assert mod.noise_std == z * clip
        assert found.std() == pytest.approx(z * clip, rel=5 / math.sqrt(2 * found.size))
        assert abs(found.mean()) < 5 * z * clip / math.sqrt(found.size)
        assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 5 / math.sqrt(found.size)


@pytest.mark.parametrize("clipping", ["flat", "per_layer"])
def test_the_update_is_clipped_before_it_is_noised(clipping):
    mod = LocalDp(2.0, clipping, noise_multiplier=1e-4, epsilon=None)
    found = read(mod, step=5.0).astype(np.float64)
    assert np.linalg.norm(found) == pytest.approx(2.0, rel=1e-3)
    assert np.linalg.norm(found[:1000]) == pytest.approx(math.sqrt(2), rel=1e-3)


def test_without_noise_the_update_is_clipped_alone():
    mod = LocalDp(2.0, epsilon=math.inf)
    assert mod.noise_std == 0
    assert np.linalg.norm(read(mod, step=5.0).astype(float)) == pytest.approx(2.0, abs=1e-5)
    assert mod.claims(SETTING)[0].account.epsilon(1) == math.inf


def test_nothing_of_the_client_leaves_beside_the_noised_update():
    reply = LocalDp()(ask(), context(), trains(1.0))
    assert set(reply.content) == {"arrays", "metrics"}
    assert dict(reply.content["metrics"]) == {"num-examples": 1}
    assert to_params(reply.content["arrays"])["seen"] == 3


def test_evaluation_on_the_records_is_refused_unless_allowed():
    with pytest.raises(PermissionError, match=r"^evaluate: .* \(allow_evaluation=false\)$"):
        LocalDp()(ask(kind="evaluate"), context(), lambda m, c: m)
    asked = ask(kind="evaluate")
    assert LocalDp(allow_evaluation=True)(asked, context(), lambda m, c: m) is asked
    asked = ask(kind="query.secagg_keys")
    assert LocalDp()(asked, context(), lambda m, c: m) is asked


def test_noise_repeats_with_its_seed_and_differs_by_client_and_round():
    mod, other = LocalDp(seed=1), LocalDp(seed=2)
    first = read(mod, 1)
    assert np.array_equal(first, read(mod, 1))
    for different in (read(mod, 2), read(mod, 1, context(1)), read(other, 1)):
        assert np.count_nonzero(first == different) < 5


def test_a_round_that_is_asked_for_twice_gets_other_noise_the_second_time():
    mod, at = LocalDp(), context()
    assert np.count_nonzero(read(mod, 1, at) == read(mod, 1, at)) < 5


def test_secure_noise_is_never_the_same_twice():
    mod = LocalDp(secure_noise=True)
    assert np.count_nonzero(read(mod) == read(mod)) < 5
    assert mod.claims(SETTING)[0].secure
    assert not LocalDp().claims(SETTING)[0].secure


def test_noised_updates_are_encoded_with_what_exceeds_the_range_cut_off():
    codec = Codec(4, clip=1.0, bits=16, max_weight=1)
    sent = model()
    reply = LocalDp(noise_multiplier=5.0, epsilon=None)(ask(), context(), trains())
    delta = difference(to_params(reply.content["arrays"]), sent)
    mean = codec.decode(codec.encode(delta, {}, 1), sent, [], 1)
    wanted = np.clip(flatten(delta), -1, 1)
    assert mean.clipped > 0.5
    assert np.abs(flatten(mean.delta) - wanted).max() <= codec.error_bound + 1e-6


# what it costs


def by_dp_accounting(z, participations, delta):
    accountant = PLDAccountant(NeighboringRelation.REPLACE_ONE)
    accountant.compose(SelfComposedDpEvent(GaussianDpEvent(z), participations))
    return accountant.get_epsilon(delta)


@pytest.mark.parametrize(("z", "delta", "participations"), [(6.5, 1e-5, 30), (20, 1e-3, 7)])
def test_epsilon_is_that_of_dp_accounting_by_participation(z, delta, participations):
    mod = LocalDp(noise_multiplier=z, epsilon=None, delta=delta)
    (claim,) = mod.claims(SETTING)
    assert (claim.unit, claim.per_participation) == ("client", True)
    assert claim.holds_against == EVERYBODY
    assert claim.account.neighbours is Neighbours.REPLACE_ONE
    wanted = by_dp_accounting(z, participations, delta)
    assert claim.account.epsilon(participations) == pytest.approx(wanted, rel=1e-3)


def test_the_sensitivity_is_twice_the_clip_whatever_the_clip():
    """z = σ/C, and two data sets are 2C apart: μ = 2√T/z, here of ε = 1 at T = 30."""
    for clip in (0.1, 1.0, 10.0):
        mod = LocalDp(clip, epsilon=1.0)
        assert mod.noise_std == pytest.approx(2 * 20.4 * clip, rel=2e-3)


def test_the_noise_found_for_a_budget_spends_it_over_all_rounds():
    for epsilon in (0.5, 1, 8.0):
        mod = LocalDp(epsilon=epsilon, rounds=12)
        account = mod.claims(SETTING)[0].account
        assert 0.999 * epsilon < account.epsilon(12) <= epsilon


def test_the_claim_says_what_secure_aggregation_does_not_add():
    assert isinstance(LocalDp(), Claiming)
    (hidden,) = LocalDp().claims(Setting((20,) * 10, 30, "secagg_plus"))
    (open_,) = LocalDp().claims(SETTING)
    assert hidden.account == open_.account
    assert set(open_.reasons) < set(hidden.reasons)
    assert "sum" in hidden.reasons[-1]


# the budget


def participations(mod, rounds, fresh):
    at, taken = context(), 0
    for server_round in range(1, rounds + 1):
        at = copied(at) if fresh else at
        try:
            mod(ask(server_round), at, trains())
        except DroppedOutError:
            return taken
        taken += 1
    return taken


@pytest.mark.parametrize("fresh", [False, True])
def test_the_participation_that_would_overspend_is_refused_and_none_before_it(fresh):
    mod = LocalDp(noise_multiplier=20.0, epsilon=1.5, rounds=30)
    account = mod.claims(SETTING)[0].account
    taken = participations(mod, 30, fresh)
    assert 1 < taken < 30
    assert account.epsilon(taken) <= 1.5 < account.epsilon(taken + 1)


def test_noise_found_for_so_many_rounds_lasts_for_these_and_no_more():
    assert participations(LocalDp(epsilon=4.0, rounds=5), 9, fresh=True) == 5


def test_without_a_budget_there_is_no_end():
    assert participations(LocalDp(noise_multiplier=1.0, epsilon=None, rounds=2), 6, False) == 6


def test_a_spent_budget_is_told_as_being_away_also_under_secure_aggregation():
    mod, at = LocalDp(epsilon=4.0, rounds=1), context()
    mod(ask(1), at, trains())
    with pytest.raises(DroppedOutError) as caught:
        mod(ask(2), at, lambda m, c: pytest.fail("trained"))
    assert str(caught.value) == "the privacy budget is spent: epsilon=4.0 after 1 participations"
    assert ABSENT in type(caught.value).__name__
    with pytest.raises(ProtocolError, match=ABSENT):
        contribution(ask(3), at, lambda m, c: mod(m, c, trains()), 1)


def test_a_training_that_fails_costs_nothing_and_its_error_passes():
    mod, at = LocalDp(rounds=1), context()

    def fails(message, context):
        return Message(Error(5, "lost"), reply_to=message)

    def raises(message, context):
        raise DroppedOutError("away in this round")

    assert mod(ask(), at, fails).error.reason == "lost"
    with pytest.raises(DroppedOutError, match="away in this round"):
        mod(ask(), at, raises)
    assert mod(ask(), at, trains()).has_content()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"clip": 0.0}, "clip=0.0: expected more than 0"),
        ({"clipping": "layers"}, "clipping=layers: expected flat or per_layer"),
        ({"epsilon": 0}, "epsilon=0: expected more than 0"),
        ({"epsilon": None}, "noise_multiplier=None: expected a number"),
        ({"noise_multiplier": 0}, "noise_multiplier=0: expected more than 0"),
        ({"noise_multiplier": 1.0, "epsilon": math.inf}, "noise_multiplier=1.0: expected null or"),
        ({"delta": 0}, r"delta=0: expected in \(0, 1\)"),
        ({"delta": 1.0}, r"delta=1.0: expected in \(0, 1\)"),
        ({"rounds": 0}, "rounds=0: expected at least 1"),
        ({"noise_multiplier": 1.0, "epsilon": 0.1}, "epsilon=0.1: expected at least 9.9"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused_before_any_training(settings, line):
    with pytest.raises(ConfigError, match=f"^{line}"):
        LocalDp(**settings)
