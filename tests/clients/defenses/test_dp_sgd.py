"""ε fits the steps, a spent budget keeps a client away, and nothing but the model leaves."""

import math

import numpy as np
import pytest
import torch
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity
from torch import nn

from clients.defenses.dp_sgd import DpSgd
from clients.honest import DroppedOutError, Honest
from fedmia import composition
from fedmia.arrays import to_params, to_record
from fedmia.errors import ConfigError
from fedmia.federation import Federation
from fedmia.models.cnn import CNN
from fedmia.models.logistic import Logistic
from fedmia.models.mlp import MLP
from fedmia.models.resnet18 import ResNet18
from fedmia.observe import ABSENT, SPENT
from fedmia.privacy.accounting import Neighbours
from fedmia.privacy.claim import EVERYBODY, Claiming, Setting
from fedmia.records import Examples
from fedmia.site import TrainingDefense
from fedmia.stack import Stack
from fedmia.training import FlatModel, LocalSGD

RECIPE = LocalSGD(local_epochs=2, batch_size=5, lr=0.1)
SHAPE, CLASSES = (6,), 3


@pytest.fixture(autouse=True)
def _identity():
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def shard(n=20, seed=0):
    rng = np.random.default_rng(seed)
    return Examples(rng.random((n, *SHAPE), dtype=np.float32), rng.integers(CLASSES, size=n))


def model():
    torch.manual_seed(0)
    return MLP([8])(SHAPE, CLASSES)


def app(defense, shards=None, module=None, recipe=RECIPE):
    shards = shards or [shard(), shard(seed=1)]
    federation = Federation(Honest(), (defense,), module or model(), recipe, shards, seed=0)
    return federation()


def context(partition_id=0, state=None):
    return Context(1, 7, {"partition-id": partition_id}, state or RecordDict(), {})


def copied(at):
    """The client in a fresh process, with what it kept."""
    return context(at.node_config["partition-id"], RecordDict(dict(at.state.items())))


def ask(server_round=1, kind="train", module=None):
    content = {"arrays": to_record(FlatModel(module or model()).params())}
    content["config"] = ConfigRecord({"server-round": server_round})
    return Message(RecordDict(content), 7, kind)


def answer(defense, at=None, server_round=1, **parts):
    reply = app(defense, **parts)(ask(server_round), at or context())
    return to_params(reply.content["arrays"])


def made(**settings):
    return DpSgd(recipe=RECIPE, **({"noise_multiplier": 1.0, "epsilon": None} | settings))


def spent(z, rate, steps, delta=1e-5):
    accountant = PLDAccountant()
    event = PoissonSampledDpEvent(rate, GaussianDpEvent(z))
    return accountant.compose(SelfComposedDpEvent(event, steps)).get_epsilon(delta)


# what leaves


def test_nothing_leaves_but_the_model_and_that_there_is_one_client():
    reply = app(made())(ask(), context())
    assert {k: type(v).__name__ for k, v in reply.content.items()} == {
        "arrays": "ArrayRecord",
        "metrics": "MetricRecord",
    }
    assert dict(reply.content["metrics"]) == {"num-examples": 1}


def test_the_number_of_records_is_told_if_it_is_public():
    reply = app(made(public_sizes=True))(ask(), context())
    assert dict(reply.content["metrics"]) == {"num-examples": 20}


def test_noise_repeats_for_a_seed_and_differs_by_client_and_participation():
    first, at = answer(made()), context()
    again = answer(made(), at)
    assert all(np.array_equal(first[k], again[k]) for k in first)
    # a server that states the same round again gets other noise
    others = [answer(made(), at, 1), answer(made(), context(1)), answer(made(seed=1))]
    for other in others:
        assert not any(np.array_equal(first[k], other[k]) for k in first)


def test_secure_noise_never_repeats():
    ours = [answer(made(secure_noise=True)) for _ in range(2)]
    assert not any(np.array_equal(ours[0][k], ours[1][k]) for k in ours[0])


def test_without_noise_and_clip_and_with_all_records_a_step_is_the_plain_one():
    recipe = LocalSGD(local_epochs=3, batch_size=50, lr=0.1)
    defense = DpSgd(recipe, clip=1e6, noise_multiplier=None, epsilon=math.inf)
    private = answer(defense, recipe=recipe)
    plain = Federation(Honest(), (), model(), recipe, [shard(), shard()], seed=0)()
    expected = to_params(plain(ask(), context()).content["arrays"])
    assert all(np.allclose(private[k], expected[k], atol=1e-5) for k in expected)


def test_updates_have_the_noise_that_is_claimed():
    torch.manual_seed(0)
    wide = MLP([400, 100])(SHAPE, CLASSES)
    recipe = LocalSGD(local_epochs=1, batch_size=5, lr=0.1, momentum=0.0)
    defense = DpSgd(recipe, clip=2.0, noise_multiplier=50.0, epsilon=None)
    reply = app(defense, module=wide, recipe=recipe)(ask(module=wide), context())
    before, after = FlatModel(wide).params(), to_params(reply.content["arrays"])
    moved = np.concatenate([(after[k] - before[k]).ravel() for k in before])
    assert moved.std() == pytest.approx(math.sqrt(4) * 0.1 * 50.0 * 2.0 / 5, rel=0.02)


def test_evaluation_is_refused_unless_allowed():
    with pytest.raises(PermissionError, match=r"^evaluate: its metrics have no noise"):
        app(made())(ask(kind="evaluate"), context())
    reply = app(made(allow_evaluation=True))(ask(kind="evaluate"), context())
    assert "accuracy" in reply.content["metrics"]


def test_an_error_passes():
    def failing(message, context):
        return Message(Error(1, "went wrong"), reply_to=message)

    assert made()(ask(), context(), failing).error.reason == "went wrong"


# the account


@pytest.mark.parametrize(("n", "rate", "steps"), [(20, 0.25, 8), (7, 5 / 7, 4), (3, 1.0, 2)])
def test_epsilon_is_the_accountants_for_the_steps_of_all_participations(n, rate, steps):
    account = made(noise_multiplier=1.5).account(n)
    for rounds in (1, 4):
        expected = spent(1.5, rate, rounds * steps)
        assert account.epsilon(rounds) == pytest.approx(expected, rel=1e-3)
    assert account.neighbours is Neighbours.ADD_REMOVE


def test_epsilon_is_close_to_opacus_own():
    from opacus.accountants import PRVAccountant, RDPAccountant

    account = made(noise_multiplier=1.5).account(20)
    for kind, tolerance in ((PRVAccountant, 0.02), (RDPAccountant, 0.15)):
        theirs = kind()
        theirs.history = [(1.5, 0.25, 10 * 8)]
        assert account.epsilon(10) == pytest.approx(theirs.get_epsilon(delta=1e-5), rel=tolerance)


def test_noise_is_found_by_every_client_for_its_own_number_of_records():
    defense = made(noise_multiplier=None, epsilon=4.0, rounds=10)
    noise = {n: defense.settled(n).noise_multiplier for n in (10, 20, 100)}
    assert noise[10] > noise[20] > noise[100]
    for n in noise:
        assert 0.999 * 4.0 < defense.account(n).epsilon(10) <= 4.0


def test_the_claim_is_that_of_the_client_that_is_worst_off():
    defense = made(noise_multiplier=2.0)
    (claim,) = defense.claims(Setting((40, 6, 5, 20), 10))
    costs = {n: defense.account(n).epsilon(10) for n in (40, 6, 5, 20)}
    assert claim.account.epsilon(10) == max(costs.values()) == costs[6]  # one more step than 5
    assert f"ε={costs[6]:.4g} with 6 records, {costs[40]:.4g} with 40" in claim.reasons[1]
    wanted = [max(defense.account(n).epsilon(t) for n in (40, 6, 5, 20)) for t in range(11)]
    assert claim.account.curve(range(11)) == pytest.approx(wanted, rel=1e-6)
    assert (claim.unit, claim.holds_against, claim.per_participation) == ("record", EVERYBODY, True)
    assert not claim.secure
    assert made(secure_noise=True).claims(Setting((20,), 1))[0].secure
    assert isinstance(defense, Claiming)


def test_the_claim_keeps_to_the_budget():
    (claim,) = made(noise_multiplier=None, epsilon=4.0, rounds=10).claims(Setting((40, 20), 10))
    assert 0.999 * 4.0 < claim.account.epsilon(10) <= 4.0
    assert "noise_multiplier=" in claim.reasons[1]


def test_noise_that_each_client_finds_for_itself_is_claimed_as_the_worst_of_all_at_any_time():
    defense = made(noise_multiplier=None, epsilon=4.0, rounds=10)
    curves = {n: defense.account(n).curve(range(1, 11)) for n in (7, 30)}
    assert curves[7] != pytest.approx(curves[30], rel=1e-2)
    (claim,) = defense.claims(Setting((30, 7, 30), 10))
    wanted = np.max([*curves.values()], axis=0)
    assert claim.account.curve(range(1, 11)) == pytest.approx(wanted, rel=1e-6)


def test_a_client_that_stays_away_costs_no_more_whatever_others_do():
    budget = made(noise_multiplier=1.0).account(6).epsilon(2) * 1.05
    defense = made(noise_multiplier=1.0, epsilon=budget, rounds=30)
    most = {n: defense.settled(n).affordable for n in (6, 40)}
    assert most[6] == 2 < most[40] < 30
    (claim,) = defense.claims(Setting((6, 40), 30))
    of = {n: [defense.account(n).epsilon(min(t, most[n])) for t in range(31)] for n in (6, 40)}
    assert of[6][-1] < of[40][-1] <= budget
    assert claim.account.curve(range(31)) == pytest.approx(np.maximum(of[6], of[40]), rel=1e-6)
    assert claim.account.epsilon(30) <= budget
    assert "with 40 records" in claim.reasons[1]


def test_a_delta_that_lets_one_of_the_fewest_records_be_given_away_is_warned_of():
    for delta, warned in ((0.05, True), (0.04, False)):
        (claim,) = made(noise_multiplier=1.0, delta=delta).claims(Setting((40, 20), 10))
        assert (claim.warnings == ("delta=0.05 is not below 1/records=0.05",)) == warned


def test_without_noise_nothing_is_claimed():
    (claim,) = made(noise_multiplier=None, epsilon=math.inf).claims(Setting((20,), 10))
    assert claim.account.epsilon(10) == math.inf


# the budget


def test_a_client_stays_away_when_its_budget_is_spent_also_in_a_fresh_process():
    budget = made(noise_multiplier=1.0).account(20).epsilon(2) + 1e-6
    defense, at = made(epsilon=budget), context()
    for server_round in (1, 2):
        answer(defense, at, server_round)
        at = copied(at)
    with pytest.raises(DroppedOutError, match=r"^the privacy budget is spent: .* 2 participations"):
        answer(defense, at, 3)
    assert ABSENT in "DroppedOutError"
    assert SPENT == "the privacy budget is spent"
    answer(defense, context(1), 3)  # another client has its own


def test_noise_that_was_found_for_so_many_participations_serves_no_more():
    defense, at = made(noise_multiplier=None, epsilon=8.0, rounds=1), context()
    answer(defense, at)
    with pytest.raises(DroppedOutError):
        answer(defense, at, 2)


def test_a_client_that_is_away_spends_nothing():
    federation = Federation(Honest(0.999), (made(),), model(), RECIPE, [shard()], seed=0)
    at = context()
    with pytest.raises(DroppedOutError, match="away"):
        federation()(ask(), at)
    assert not at.state.config_records


def test_an_account_is_for_the_records_that_it_was_opened_with():
    at = context()
    answer(made(), at)
    with pytest.raises(ValueError, match=r"^21 records: the account is for 20$"):
        answer(made(), at, shards=[shard(21)])


# what is refused


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"clip": 0.0}, r"clip=0\.0: expected more than 0 and finite"),
        ({"rounds": 0}, "rounds=0: expected at least 1"),
        ({"delta": 1.0}, r"delta=1\.0: expected in \(0, 1\)"),
        ({"epsilon": -1.0}, r"epsilon=-1\.0: expected more than 0.*"),
        ({"noise_multiplier": None}, "noise_multiplier=None: expected .*epsilon.*"),
        ({"noise_multiplier": 0.0, "epsilon": 1.0}, r"noise_multiplier=0\.0: expected .*"),
    ],
)
def test_values_out_of_range_are_refused_in_one_line(settings, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        made(**settings)


def test_a_recipe_without_steps_of_sgd_is_refused():
    with pytest.raises(ConfigError, match=r"^recipe=str: expected LocalSGD \(train=local_sgd\)"):
        DpSgd(recipe="fit")


def test_a_recipe_that_another_defence_made_is_refused():
    class Other:
        def fit(self, model, x, y, rng):
            return 0.0

    for theirs in (Other(), LocalSGD(local_epochs=3)):
        with pytest.raises(ConfigError, match=r"^client\.defenses\.dp_sgd\.recipe=.*: expected"):
            made().trains(theirs, context())
    assert isinstance(made(), TrainingDefense)


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        (nn.BatchNorm1d(6), r"model=BatchNorm1d '1': expected no BatchNorm.*nn\.GroupNorm.*opacus"),
        (nn.BatchNorm1d(6, track_running_stats=False, affine=False), "model=BatchNorm1d '1': .*"),
        (
            nn.InstanceNorm1d(6, track_running_stats=True),
            "model=InstanceNorm1d '1': expected track_running_stats=False",
        ),
    ],
)
def test_layers_that_mix_records_are_refused_by_name(layer, line):
    with pytest.raises(ConfigError, match=f"^{line}"):
        made().check_model(nn.Sequential(nn.Linear(6, 6), layer))


def test_the_repositorys_models_are_allowed():
    for builder in (MLP(), Logistic(), CNN(), ResNet18(8, 4)):
        made().check_model(builder((3, 8, 8), CLASSES))


class Centred(nn.Module):
    """Takes the mean over records from each."""

    def forward(self, x):
        return x - x.mean(0)


class Counting(nn.Module):
    """Keeps a sum over what it saw."""

    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.zeros(()))

    def forward(self, x):
        self.total += x.detach().sum()
        return x


@pytest.mark.parametrize(
    ("layer", "error", "text"),
    [(Centred(), ValueError, "mixes records"), (Counting(), RuntimeError, "changed a buffer")],
)
def test_models_that_would_leak_beside_the_noise_are_caught_at_the_client(layer, error, text):
    module = nn.Sequential(nn.Flatten(), layer, nn.Linear(6, CLASSES))
    with pytest.raises(error, match=text):
        app(made(), module=module)(ask(module=module), context())


@pytest.mark.parametrize("tracks", [True, False])
def test_batch_norm_is_refused_before_training(tracks):
    layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(6, track_running_stats=tracks))
    stack = Stack(FedAvg(fraction_evaluate=0.0), {"dp_sgd": made()}, [20, 20], model=layers)
    with pytest.raises(ConfigError, match=r"^.*model=.*BatchNorm.*GroupNorm.*$"):
        composition.check(stack)
