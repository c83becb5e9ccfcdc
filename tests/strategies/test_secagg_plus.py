"""The wrapped strategy gets the survivors' mean, exactly, or the round leaves no trace."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, Krum
from secagg_federations import (
    STAGES,
    START,
    after,
    expected,
    fail,
    fedavg,
    hears,
    run,
    same,
    says,
)

from fedmia.arrays import to_params, to_record
from fedmia.errors import ConfigError
from fedmia.records import MASKED, WORDS
from fedmia.secagg.noise import Noise
from fedmia.secagg.protocol import Protocol
from fedmia.secagg.wire import RECORD
from strategies.secagg_plus import SecAggPlus

KEYS, SHARES, TRAIN, VOUCH, UNMASK = STAGES
WHOLE = Protocol(5, neighbors=4, threshold=2, clip=2.0)
SPARSE = Protocol(8, neighbors=4, threshold=2, corrupt=0.0, dropout=0.25, clip=2.0)
SIGNED = Protocol(7, malicious_server=True, clip=2.0)  # threshold 5 of 6


def of_the_rest(ended, protocol, clients):
    params, metrics = expected(protocol, clients)
    assert same(ended.params, params)
    assert ended.metrics[1] == pytest.approx({k: v for k, v in metrics.items() if k == "loss"})
    assert ended.abandoned == []


def unchanged(ended, said):
    assert same(ended.params, START)
    assert ended.metrics == {}
    ((server_round, reason),) = ended.abandoned
    assert server_round == 1
    assert said in reason
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (FedAvg, {}),
        (FedAvgM, {"server_momentum": 0.9}),
        (FedAdam, {"eta": 0.01, "tau": 0.1}),
    ],
)
def test_two_rounds_are_those_of_the_wrapped_strategy_in_the_open(kind, settings):
    protocol = Protocol(5, clip=2.0, bits=28, max_weight=50)
    hidden = run(protocol, rounds=2, inner=fedavg(5, kind, **settings))
    open_ = run(None, rounds=2, inner=fedavg(5, kind, **settings))
    for name in ("w", "b"):
        value = open_.params[name]
        np.testing.assert_allclose(hidden.params[name], value, rtol=0, atol=2e-6)
        assert not np.array_equal(value, START[name])
    for server_round in (1, 2):
        assert hidden.metrics[server_round]["loss"] == pytest.approx(
            open_.metrics[server_round]["loss"], abs=1e-5
        )


class NoisyMean(FedAvg):
    """Central noise on the sum, as a strategy of one's own would add it; it says it is linear."""

    linear = True

    def aggregate_train(self, server_round, replies):
        arrays, metrics = super().aggregate_train(server_round, replies)
        rng = np.random.default_rng(server_round)
        noisy = {k: v + rng.normal(0, 0.5, v.shape) for k, v in to_params(arrays).items()}
        return to_record({k: v.astype(START[k].dtype) for k, v in noisy.items()}), metrics


def test_a_strategy_of_ones_own_adds_its_central_noise_to_the_sum():
    protocol = Protocol(5, clip=2.0, bits=28, max_weight=50)
    hidden = run(protocol, inner=fedavg(5, NoisyMean))
    open_, plain = run(None, inner=fedavg(5, NoisyMean)), run(None)
    for name in ("w", "b"):
        np.testing.assert_allclose(hidden.params[name], open_.params[name], rtol=0, atol=2e-6)
        assert np.abs(hidden.params[name] - plain.params[name]).max() > 0.1


def test_after_two_rounds_the_error_is_within_twice_the_bound():
    hidden, open_ = run(WHOLE, rounds=2), run(None, rounds=2)
    bound = 2 * WHOLE.codec.error_bound
    for name in ("w", "b"):
        error = np.abs(np.asarray(hidden.params[name]) - open_.params[name]).max()
        assert 0 < error <= bound * 1.001 + 1e-6


@pytest.mark.parametrize("protocol", [WHOLE, SPARSE, SIGNED], ids=["whole", "sparse", "signed"])
def test_all_clients_give_their_exact_sum_and_counters_stay(protocol):
    n = protocol.cohort
    ended = run(protocol, n=n)
    of_the_rest(ended, protocol, range(n))
    assert ended.params["seen"] == 7
    assert (VOUCH in ended.federation.stages()) == protocol.malicious_server


@pytest.mark.parametrize("how", [fail, after], ids=["before", "after"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("protocol", [WHOLE, SPARSE, SIGNED], ids=["whole", "sparse", "signed"])
def test_one_client_lost_at_any_stage_leaves_the_exact_sum_of_the_others(protocol, stage, how):
    n = protocol.cohort
    lost = {3} if stage in (KEYS, SHARES, TRAIN) else set()
    ended = run(protocol, {(3, stage): how}, n=n)
    of_the_rest(ended, protocol, sorted(set(range(n)) - lost))


@pytest.mark.parametrize("stage", STAGES)
def test_too_many_lost_at_any_stage_leave_the_model_and_open_nothing(stage):
    protocol = Protocol(7, malicious_server=True, clip=2.0)
    ended = run(protocol, {(k, stage): fail for k in range(2)}, n=7)
    unchanged(ended, "expected at least")
    stages = STAGES[: STAGES.index(stage) + 1]
    assert ended.federation.stages() == set(stages)
    later = run(protocol, {(k, stage): fail for k in range(7)}, n=7)
    unchanged(later, "expected at least")
    assert later.federation.stages() == set(stages)


def test_the_client_that_is_called_first_is_the_first_to_answer():
    assert run(WHOLE).federation.seen[0] == (FIRST, KEYS)


def test_a_round_after_an_abandoned_one_works():
    first = []

    def once(message, proceed):
        first.append(message)
        if len(first) <= 4:
            raise ConnectionError("lost on purpose")
        return proceed()

    ended = run(WHOLE, {(k, TRAIN): once for k in range(4)}, rounds=2)
    assert [r for r, _ in ended.abandoned] == [1]
    params, _ = expected(WHOLE, range(5))
    assert same(ended.params, params)


def _words(change):
    def meddle(message, proceed):
        reply = proceed()
        words = reply.content[MASKED][WORDS].numpy()
        reply.content[MASKED] = ArrayRecord({WORDS: Array(change(words))})
        return reply

    return meddle


def _no_words(message, proceed):
    reply = proceed()
    del reply.content[MASKED]
    return reply


def _no_record(message, proceed):
    reply = proceed()
    del reply.content[RECORD]
    return reply


def _no_array(message, proceed):
    reply = proceed()
    array = Array("uint32", [10], "numpy.ndarray", b"no array at all")
    reply.content[MASKED] = ArrayRecord({WORDS: array})
    return reply


FIRST = 0
"""The client whose answers come first, with the seed of the federation."""

LIES = {
    "short words": (TRAIN, _words(lambda w: w[:-1])),
    "long words": (TRAIN, _words(lambda w: np.append(w, w[:1]))),
    "no words": (TRAIN, _no_words),
    "no array": (TRAIN, _no_array),
    "words of another type": (TRAIN, _words(lambda w: w.astype(np.float64))),
    "words of another modulus": (TRAIN, _words(lambda w: w.astype(np.uint16))),
    "words of another shape": (TRAIN, _words(lambda w: w[None])),
    "other metrics": (TRAIN, says(metrics=["accuracy"])),
    "more metrics": (TRAIN, says(metrics=["loss", "accuracy"])),
    "metrics that are no names": (TRAIN, says(metrics=[1.0])),
    "no record": (TRAIN, _no_record),
    "a key of low order": (KEYS, says(mask_key=bytes(32))),
    "a short key": (KEYS, says(share_key=b"k")),
    "a number for a key": (KEYS, says(mask_key=3)),
    "shares for strangers": (SHARES, says(to=[1, 2, 3, 4], sealed=[b"", b"", b"", b""])),
    "shares for too few": (SHARES, says(to=[], sealed=[])),
    "no shares": (SHARES, _no_record),
    "no commitment": (SHARES, says(commitment="none")),
}


@pytest.mark.parametrize("liar", [FIRST, 2])
@pytest.mark.parametrize("lie", LIES)
def test_a_client_that_lies_is_left_out_and_the_sum_of_the_others_is_exact(lie, liar):
    stage, meddle = LIES[lie]
    ended = run(WHOLE, {(liar, stage): meddle})
    of_the_rest(ended, WHOLE, [k for k in range(5) if k != liar])


@pytest.mark.parametrize("answer", [b"\x01" * 33, b"", b"\xff" * 33])
def test_wrong_shares_of_one_client_are_passed_over(answer):
    def meddle(message, proceed):
        reply = proceed()
        given = reply.content[RECORD]
        for name in ("own_shares", "key_shares"):
            given[name] = [answer for _ in given[name]]
        return reply

    of_the_rest(run(WHOLE, {(0, UNMASK): meddle}), WHOLE, range(5))
    lost = run(WHOLE, {(0, UNMASK): meddle, (4, TRAIN): fail})
    of_the_rest(lost, WHOLE, range(4))


def test_a_false_signature_of_one_client_is_passed_over():
    ended = run(SIGNED, {(0, VOUCH): says(signature=bytes(64))}, n=7)
    of_the_rest(ended, SIGNED, range(7))


def test_a_commitment_that_nothing_fits_ends_the_round():
    ended = run(WHOLE, {(0, SHARES): says(commitment=bytes(32))})
    unchanged(ended, "fit together")


def test_one_whose_shares_were_tampered_with_on_the_way_drops_out():
    def tamper(content):
        given = content[RECORD]
        given["sealed"] = [given["sealed"][0][:-1] + b"\x00\x00", *given["sealed"][1:]]

    ended = run(WHOLE, {(2, TRAIN): hears(tamper)})
    of_the_rest(ended, WHOLE, [0, 1, 3, 4])


def _another_model(content):
    content["arrays"] = to_record({k: v + v.dtype.type(1) for k, v in START.items()})


def _another_setting(content):
    (config,) = (r for n, r in content.config_records.items() if n != RECORD)
    config["lr"] = 0.0


def _one_setting_more(content):
    content["more"] = ConfigRecord({"lr": 0.0})


@pytest.mark.parametrize("lie", [_another_model, _another_setting, _one_setting_more])
@pytest.mark.parametrize("protocol", [WHOLE, Protocol(5, neighbors=4, bits=32, modulus_bits=64)])
def test_two_clients_asked_different_things_give_no_sum(protocol, lie):
    unchanged(run(protocol, {(2, TRAIN): hears(lie)}), "the masks do not cancel")


def test_a_message_of_another_execution_is_not_answered():
    def change(content):
        content[RECORD]["session"] = b"x" * 16

    of_the_rest(run(WHOLE, {(2, TRAIN): hears(change)}), WHOLE, [0, 1, 3, 4])


@pytest.mark.parametrize("mechanism", ["discrete_gaussian", "skellam"])
def test_noise_under_the_mask_leaves_the_mean_near_the_truth(mechanism):
    noise = Noise(mechanism, clip=10.0, noise_multiplier=0.01, min_survivors=4)
    protocol = Protocol(5, corrupt=0, neighbors=4, max_weight=1, noise=noise)
    ended = run(protocol, {(1, TRAIN): fail})
    flat = np.mean([np.cos(1.0 + k) for k in (0, 2, 3, 4)])
    for name in ("w", "b"):
        truth = START[name] + 0.1 * (flat - START[name])
        # sigma = 0.01·10/4 in each coordinate of the mean
        assert 0 < np.abs(ended.params[name] - truth).max() < 5 * 0.025
    assert ended.metrics[1] == {}


def test_noise_of_too_few_is_never_uncovered():
    noise = Noise("skellam", clip=10.0, noise_multiplier=0.01, min_survivors=4)  # and a colluder
    protocol = Protocol(5, neighbors=4, threshold=2, max_weight=1, noise=noise)
    ended = run(protocol, {(1, TRAIN): fail})
    unchanged(ended, "4 clients sent a masked update: expected at least 5")
    assert UNMASK not in ended.federation.stages()


def test_more_clients_than_the_cohort_are_not_begun_with():
    ended = run(Protocol(5, neighbors=4), n=6)
    unchanged(ended, "6 clients: expected at most cohort=5")
    assert ended.federation.stages() == set()


def test_a_rule_that_looks_at_single_updates_is_refused():
    with pytest.raises(ConfigError, match="inner=Krum: expected a rule that is linear"):
        SecAggPlus(Krum(), WHOLE)
    with pytest.raises(ConfigError, match="timeout_s=0: expected null or more than 0"):
        SecAggPlus(FedAvg(), WHOLE, timeout_s=0)
