"""What is released never tells two neighbours apart by digits that only one can have."""

import math

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

from clients.defenses.local_dp import LocalDp
from clients.defenses.updates import clipped
from fedmia.arrays import to_params, to_record
from fedmia.privacy.lattice import margin, noised, rounded
from fedmia.privacy.private_sgd import PrivateSGD
from fedmia.privacy.randomness import gaussian_source
from fedmia.training import FlatModel, LocalSGD
from strategies.clipped_sum import ClippedSum
from strategies.dp_central import DpCentral

SIZE, CLIENTS, GAMMA = 20_000, 10, 2.0**-24


@pytest.fixture(autouse=True)
def _messages_can_be_made():
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def unit(seed, length=0.9):
    vector = np.random.default_rng(seed).standard_normal(SIZE)
    return (length * vector / np.linalg.norm(vector)).astype(np.float32)


def model():
    return {"w": np.random.default_rng(99).uniform(-1 / 16, 1 / 16, SIZE).astype(np.float32)}


def impossible(out, total, clip, cohort):
    """Count coordinates of a released model that no noise on the lattice makes of a sum.

    The model is w + clip·(⌊total/clip⌉ + noise)/cohort in single precision.
    """
    start = model()["w"]
    guess = (out.astype(np.float64) - start) * cohort / clip - rounded(total / clip)
    possible = np.zeros(SIZE, bool)
    for step in range(-40, 41):
        noise = rounded(guess) + step * GAMMA
        moved = noised(total, noise, clip) / cohort
        possible |= (start + moved).astype(np.float32) == out
    return int((~possible).sum())


def summed(updates, clip):
    sums = ClippedSum(model(), clip, CLIENTS)
    for update in updates:
        sums.add({"w": model()["w"] + update})
    return sums.total


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(("z", "clip"), [(0.3, 1.0), (3.0, 0.7)])
def test_a_central_release_is_possible_with_and_without_a_client(z, clip, secure):
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    strategy = DpCentral(
        inner, clip, 1, CLIENTS, noise_multiplier=z, clip_by="server", secure_noise=secure
    )
    updates = [unit(k) for k in range(CLIENTS)]
    strategy._begun = "arrays", to_record(model()), 1
    replies = []
    for node, update in enumerate(updates, start=1):
        content = {
            "arrays": to_record({"w": model()["w"] + update}),
            "metrics": MetricRecord({"num-examples": 1}),
        }
        asked = Message(RecordDict(), node, "train")
        replies.append(Message(RecordDict(content), reply_to=asked))
    out = to_params(strategy.aggregate_train(1, replies)[0])["w"]
    without, other = updates[:-1], [*updates[:-1], unit(77)]
    for federation in (updates, without, other):
        assert impossible(out, summed(federation, clip), clip, CLIENTS) == 0


def test_noise_in_single_precision_would_be_told_apart():
    """The attack on what is not on a lattice: float32(x + n) for any float32 n."""
    mine, theirs = unit(1) * 10, unit(2) * 10
    out = mine + gaussian_source(False, 0, "x")(SIZE)

    def none_makes(total):
        down = up = (out.astype(np.float64) - total).astype(np.float32)
        possible = total + up == out
        for _ in range(30):
            up = np.nextafter(up, np.float32(np.inf))
            down = np.nextafter(down, np.float32(-np.inf))
            possible |= (total + up == out) | (total + down == out)
        return int((~possible).sum())

    assert none_makes(mine) == 0
    assert none_makes(theirs) > 10


@pytest.mark.parametrize("z", [1.0, 30.0])
def test_a_noised_update_of_a_client_is_possible_for_any_of_its_data_sets(z):
    mod = LocalDp(noise_multiplier=z, epsilon=None, rounds=1, secure_noise=True)

    def answer(message, context):
        content = {
            "arrays": to_record({"w": model()["w"] + unit(1)}),
            "metrics": MetricRecord({"num-examples": 1}),
        }
        return Message(RecordDict(content), reply_to=message)

    seen = {}

    def noised_update(update, *where):
        seen["mine"] = update
        seen["out"] = LocalDp._noised(mod, update, *where)
        return seen["out"]

    asked = {"arrays": to_record(model()), "config": ConfigRecord({"server-round": 1})}
    context = Context(1, 7, {"partition-id": 0}, RecordDict(), {})
    object.__setattr__(mod, "_noised", noised_update)
    mod(Message(RecordDict(asked), 7, "train"), context, answer)
    for other in (seen["mine"], clipped({"w": unit(2) * 3.0}, 1.0), {"w": np.zeros(SIZE)}):
        noise = seen["out"]["w"] - rounded(other["w"])
        np.testing.assert_array_equal(noised(other["w"], noise, 1.0), seen["out"]["w"])


def test_secure_steps_of_dp_sgd_move_along_the_lattice():
    network = FlatModel(torch.nn.Linear(3, 2))
    network.flat.zero_()
    base = LocalSGD(local_epochs=1, batch_size=4, lr=4.0, momentum=0.0)
    noise = gaussian_source(True, 0, "x")
    draws = np.random.default_rng(0).random
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    PrivateSGD(base, 0.5, 1.0).train(network, x, y, draws, noise)
    # lr / (q n) is 1 and the start 0: the model is minus the step
    steps = -network.flat.double().numpy() / 0.5
    np.testing.assert_array_equal(steps, rounded(steps))
    assert np.abs(steps).max() > 0


def test_rounding_moves_a_vector_by_no_more_than_the_margin():
    vectors = np.random.default_rng(0).normal(size=(2, 5001))
    moved = [rounded(v) - v for v in vectors]
    assert np.linalg.norm(moved[0] - moved[1]) <= margin(5001)
    assert margin(4) == pytest.approx(2 * GAMMA)


@pytest.mark.parametrize("clip", [1.0, 0.3, 1e3])
def test_what_is_released_is_sum_and_noise_to_within_half_a_step_each(clip):
    rng = np.random.default_rng(0)
    total, noise = rng.normal(size=100) * clip, rng.normal(size=100)
    found = noised(total, noise, clip)
    assert np.abs(found - (total + clip * noise)).max() <= clip * GAMMA * (1 + 1e-6)
    steps = found / clip / GAMMA
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-5)
    assert math.isclose(noised(np.array([clip]), np.array([2.0]), clip)[0], 3 * clip)
