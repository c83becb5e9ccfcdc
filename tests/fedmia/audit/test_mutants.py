"""The audit against mechanisms that are right, and against such that are broken on purpose."""

import math

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

from clients.canaries.random_direction import RandomDirection, direction
from clients.defenses.local_dp import LocalDp
from fedmia.arrays import to_params, to_record
from fedmia.audit import cosines, one_shot_lower_bound
from fedmia.audit.clip_quantile import clip_followed
from fedmia.canaries.audit_clients import audit_canaries
from fedmia.canaries.watch import Watch
from fedmia.guards import check
from fedmia.privacy.claim import Setting
from fedmia.promises import alarm, spent
from fedmia.seeding import generator
from strategies.dp_central import DpCentral
from strategies.dp_ftrl import DpFtrl

CANARIES, HONEST, SIZE, ROUNDS = 80, 2, 3000, 6
CLIENTS, DELTA, CONFIDENCE = CANARIES + HONEST, 1e-5, 0.95


@pytest.fixture(autouse=True)
def _messages_can_be_made():
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID


class Nodes(Grid):
    """Knows who is there and sends nothing."""

    def get_node_ids(self):
        return list(range(1, CLIENTS + 1))

    def set_run(self, run):
        raise NotImplementedError

    @property
    def run(self):
        raise NotImplementedError

    def create_message(self, *args, **kwargs):
        raise NotImplementedError

    def push_messages(self, messages):
        raise NotImplementedError

    def pull_messages(self, message_ids):
        raise NotImplementedError

    def send_and_receive(self, messages, *, timeout=None):
        raise NotImplementedError


def fedavg():
    return FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=1)


def central(kind=DpCentral, seed=0, **settings):
    return kind(fedavg(), rounds=ROUNDS, clients=CLIENTS, seed=seed, **{"clip": 1.0} | settings)


def proved(strategy, seed, norm=1.0, rounds=ROUNDS, watch=None, mod=None):
    """Return the ε that the canaries of one training prove; they send vectors of this norm."""
    canaries = np.stack([direction(seed, j, SIZE) for j in range(CANARIES)])
    rng = generator(seed, "honest")
    model = {"first": np.zeros(SIZE // 3, np.float32), "rest": np.zeros((2, SIZE // 3), np.float32)}
    start, states = flat(model), {}
    if watch:
        watch.see(0, model)
    for server_round in range(1, rounds + 1):
        sent = strategy.configure_train(server_round, to_record(model), ConfigRecord(), Nodes())
        replies = []
        for message in sent:
            client = message.metadata.dst_node_id - 1
            honest = rng.standard_normal(SIZE, dtype=np.float32)
            step = norm * canaries[client] if client < CANARIES else honest
            replies.append(answer(message, step, mod, states))
        arrays, _ = strategy.aggregate_train(server_round, replies)
        model = to_params(arrays)
        if watch:
            watch.see(server_round, model)
    seen = cosines(canaries, flat(model) - start)
    return one_shot_lower_bound(seen, SIZE, DELTA, CONFIDENCE, generator(seed, "audit"))


def answer(message, step, mod, states):
    """Return a client's reply, through the mod around it if there is one."""
    if mod is None:
        return reply(message, step)
    client = message.metadata.dst_node_id - 1
    state = states.setdefault(client, RecordDict())
    context = Context(1, client + 1, {"partition-id": client}, state, {})
    return mod(message, context, lambda message, context: reply(message, step))


def flat(model):
    return np.concatenate([value.ravel() for value in model.values()])


def reply(message, step):
    ((name, sent),) = message.content.array_records.items()
    params, start, moved = to_params(sent), 0, {}
    for key, value in params.items():
        moved[key] = value + step[start : start + value.size].reshape(value.shape)
        start += value.size
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({name: to_record(moved), "metrics": metrics}), reply_to=message)


RIGHT = {
    "flat": lambda seed: central(seed=seed, epsilon=2),
    "per layer": lambda seed: central(seed=seed, epsilon=2, clipping="per_layer"),
    "poisson": lambda seed: central(seed=seed, epsilon=2, sampling="poisson", rate=0.5),
    "fixed": lambda seed: central(
        seed=seed, epsilon=4, sampling="fixed", rate=0.5, neighbours="replace_one"
    ),
    "adaptive": lambda seed: central(seed=seed, epsilon=4, adaptive=True, clip=0.3),
    "tree": lambda seed: central(DpFtrl, seed=seed, epsilon=4, groups=2),
}


@pytest.mark.parametrize("name", RIGHT)
def test_no_bound_of_twenty_runs_exceeds_the_claim_of_a_right_mechanism(name):
    bounds = [proved(RIGHT[name](seed), seed, norm=50.0) for seed in range(20)]
    assert max(bounds) <= RIGHT[name](0).account.epsilon(ROUNDS)


def test_no_bound_of_twenty_runs_exceeds_what_local_noise_promises():
    bounds = []
    for seed in range(20):
        mod = LocalDp(epsilon=20.0, rounds=ROUNDS, seed=seed)
        bounds.append(proved(fedavg(), seed, norm=50.0, mod=mod))
    assert max(bounds) <= 20.0
    unprotected = LocalDp(epsilon=math.inf, rounds=ROUNDS)
    assert proved(fedavg(), 0, norm=50.0, mod=unprotected) > 20.0


def test_the_bound_is_above_zero_where_the_claim_is_large():
    bounds = [proved(central(seed=seed, epsilon=40), seed) for seed in range(5)]
    assert min(bounds) > 2


class NoiseOverCohort(DpCentral):
    """Adds noise that was already divided by the cohort, and divides it again."""

    def noise(self, server_round, size):
        return super().noise(server_round, size) / np.float32(self.cohort)


class ClipAfterNoise(DpCentral):
    """Adds up updates as they come, and clips the noisy sum.

    That scales the sum and leaves its direction as it is, which alone the canaries look at.
    """

    def __init__(self, inner, **settings):
        super().__init__(inner, **settings)
        self.clip_by = "clients"  # the server does not clip, and no client does either


class ForgottenComposition(DpCentral):
    """Has noise for one round, and spends it in every round."""

    def __init__(self, inner, rounds, **settings):
        super().__init__(inner, rounds=1, **settings)
        self.affordable = None  # no budget stops it


class NoiseScaledByTheNextClip(DpCentral):
    """Scales the noise by a clip that is smaller than that of the round."""

    def summed(self, server_round, within, answered):
        self.clips.append((server_round, self.clip))

    def noise_clip(self, metrics):
        used, self.clip = self.clip, self.clip * math.exp(-self._adapting.clip_lr * 0.5)
        return self.clip if used else used


BROKEN = {
    "noise over cohort": (NoiseOverCohort, {}, ROUNDS),
    "clip after noise": (ClipAfterNoise, {}, ROUNDS),
    "forgotten composition": (ForgottenComposition, {}, 40),
    "noise scaled by the next clip": (
        NoiseScaledByTheNextClip,
        {"adaptive": True, "clip_lr": 8.0, "bit_noise": 20.0},
        ROUNDS,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_mechanisms_are_caught_in_every_run(name):
    kind, settings, rounds = BROKEN[name]
    bounds = [
        proved(central(kind, seed=seed, epsilon=2, **settings), seed, 50.0, rounds)
        for seed in range(5)
    ]
    assert min(bounds) > 2, bounds


class InvertedAdaptiveClipping(DpCentral):
    """Moves the clip by the share of updates that were clipped, as Flower 1.41 does."""

    def summed(self, server_round, within, answered):
        super().summed(server_round, answered - within, answered)


@pytest.mark.parametrize(("kind", "caught"), [(DpCentral, False), (InvertedAdaptiveClipping, True)])
@pytest.mark.parametrize("clip", [0.5, 2.0])
def test_a_clip_that_moves_the_wrong_way_is_caught_by_its_shares(kind, caught, clip):
    strategy = central(kind, epsilon=40, adaptive=True, clip=clip, clip_lr=0.5)
    strategy.affordable = None
    proved(strategy, 0, rounds=24)
    shares = [share for _, share in strategy.shares]
    quantile, noise = strategy.aim
    line = clip_followed(shares, quantile, noise)
    assert (line is not None) == caught
    if caught:
        facts = {"candidates_sha256": "", "shared": 0, "repeated": 0, "null_run": False}
        guards = check([], [], test_accuracy=None, clip_astray=line, **facts)
        assert [g["status"] for g in guards if g["name"] == "adaptive clip"] == ["warn"]


@pytest.mark.parametrize(("kind", "alarmed"), [(DpCentral, False), (NoiseOverCohort, True)])
def test_the_alarm_is_raised_by_canaries_of_a_broken_mechanism_alone(kind, alarmed):
    strategy = central(kind, epsilon=2)
    watch = Watch(RandomDirection(count=CANARIES, num_clients=CLIENTS, seed=0))
    proved(strategy, 0, norm=50.0, watch=watch)
    found = audit_canaries(watch, DELTA, CONFIDENCE, generator(0, "canary clients"))
    setting = Setting((5,) * CLIENTS, ROUNDS)
    claims = spent([("strategy", c) for c in strategy.claims(setting)], ROUNDS, {})
    line = alarm({"claims": claims, "canary_clients": found})
    assert (line is not None) == alarmed
    assert line is None or line.startswith("canary clients prove ε ≥ ")
