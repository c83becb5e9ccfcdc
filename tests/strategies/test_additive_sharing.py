"""Shares add up to the mean of those who stayed, and a party that is lied to drops the liar."""

import re

import adding_up
import numpy as np
import pytest
from adding_up import Run, fed_avg, mean, resend, restate, weight, words
from flwr.serverapp.strategy import FedMedian
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.defenses.additive_sharing import AdditiveSharing as Mod
from fedmia.errors import ConfigError
from fedmia.secagg.cohort import Cohort
from strategies.additive_sharing import AdditiveSharing

OFF = 1e-6  # float32 models; all updates are multiples of the step


def make(parties=2, cohort=4, **settings):
    protocol = Cohort(cohort, min_clients=2, **settings)
    return AdditiveSharing(fed_avg(), protocol, parties), Mod(protocol, parties)


@settings(max_examples=15, deadline=None)
@given(
    parties=st.integers(2, 4),
    away=st.sets(st.integers(0, 4), max_size=3),
    bits=st.sampled_from([32, 64]),
)
def test_the_mean_is_that_of_all_who_stayed(parties, away, bits):
    strategy, mod = make(parties, cohort=5, modulus_bits=bits)

    ((arrays, metrics),) = Run(strategy, mod, clients=5, away=tuple(away)).rounds(1)

    stayed = [k for k in range(5) if k not in away]
    assert np.allclose(weight((arrays, metrics)), mean(stayed), atol=OFF)
    losses = sum((k + 1) * k for k in stayed) / sum(k + 1 for k in stayed)
    assert metrics["train-loss"] == pytest.approx(losses, abs=100 / 32767)
    assert arrays["steps"].numpy() == [7]  # counters are not summed
    assert strategy.abandoned == []


def test_rounds_follow_each_other():
    strategy, mod = make()

    first, second = Run(strategy, mod).rounds(1, 2)

    assert np.array_equal(weight(first), weight(second))


def test_with_too_few_left_nothing_is_published():
    strategy, mod = make()

    assert Run(strategy, mod, away=(0, 1, 3)).rounds(1) == [(None, None)]

    assert strategy.abandoned == [(1, "1 clients are left: expected min_clients=2")]
    assert not any(party._published for party in strategy.parties)


def test_the_wire_carries_neither_updates_nor_weights():
    strategy, mod = make()
    seen = []
    Run(strategy, mod, spoil=seen.extend).rounds(1)

    plain = mod.protocol.codec.encode({"weight": adding_up.update(0)}, {"train-loss": 0.0}, 1)
    for reply in seen:
        assert not np.any(words(reply)[-2] == np.arange(5))
        assert len(words(reply)) == len(plain)
        assert "num-examples" not in reply.content["metrics"]


def flip(reply):
    changed = words(reply).copy()
    changed[2] ^= 1
    resend(reply, changed)


def flip_sealed(number):
    def spoil(reply):
        sealed = list(reply.content["secagg"]["sealed"])
        sealed[number] = bytes([sealed[number][0] ^ 1]) + sealed[number][1:]
        restate(reply, sealed=sealed)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (flip, "party 0: the words are not those that were sent"),
        (flip_sealed(0), "party 0: a sealed message of 92 bytes does not authenticate"),
        (flip_sealed(1), "party 1: a sealed message of 60 bytes does not authenticate"),
        (lambda r: restate(r, key=bytes(32)), "malformed or of low order"),
        (lambda r: restate(r, sealed=[b""]), "1 sealed shares: expected 2, one a party"),
        (lambda r: restate(r, metrics=["loss"]), r"expected \('train-loss',\), as the others"),
        (lambda r: resend(r, words(r)[1:]), r"\(8,\) words of uint32: expected 9 of uint32"),
        (lambda r: resend(r, words(r).astype(np.uint64)), "words of uint64: expected 9"),
        (lambda r: r.content.pop("masked"), "without masked words"),
        (lambda r: r.content.pop("secagg"), "without the record of the protocol"),
    ],
)
def test_a_client_whose_answer_was_tampered_with_drops_out_and_the_rest_is_exact(
    spoil, reason, caplog
):
    strategy, mod = make()

    (found,) = Run(strategy, mod, spoil=lambda replies: spoil(replies[2])).rounds(1)

    assert any(np.allclose(weight(found), mean(s), atol=OFF) for s in three_of_four())
    assert re.search(reason, caplog.text)


def three_of_four():
    return [[k for k in range(4) if k != lost] for lost in range(4)]


def test_clients_that_were_asked_different_things_have_no_common_sum():
    strategy, mod = make()
    begin = strategy.begin

    def lie(begun, messages):
        asked = begin(begun, messages)
        asked[1].content["config"] = asked[1].content["config"].copy()
        asked[1].content["config"]["lr"] = 0.0
        return asked

    strategy.begin = lie
    (found,) = Run(strategy, mod).rounds(1)

    assert any(np.allclose(weight(found), mean(s), atol=OFF) for s in three_of_four())


def test_what_cannot_be_summed_is_refused():
    protocol = Cohort(4)
    with pytest.raises(ConfigError, match=r"^parties=1: expected at least 2"):
        AdditiveSharing(fed_avg(), protocol, 1)
    with pytest.raises(ConfigError, match=r"^inner=FedMedian: expected a rule that is linear"):
        AdditiveSharing(FedMedian(), protocol)


def test_more_clients_than_the_cohort_are_not_asked():
    strategy, mod = make(cohort=3)

    assert Run(strategy, mod).rounds(1) == [(None, None)]
    assert strategy.abandoned == [(1, "4 clients: expected at most cohort=3")]
