"""The decrypted mean is exact, whoever decrypts; what was tampered with is not used."""

import re
import sys

import numpy as np
import pytest
from adding_up import Run, fed_avg, mean, resend, restate, weight, words
from flwr.serverapp.strategy import Krum

from clients.defenses.homomorphic import Homomorphic as Mod
from fedmia.errors import ConfigError
from fedmia.secagg.ckks import _keyless
from fedmia.secagg.cohort import Cohort
from fedmia.secagg.shared_key import SharedKey
from strategies.homomorphic import Homomorphic

OFF = 1e-6  # float32 models; all updates are multiples of the step
KEYS = SharedKey()


def make(decryptors=1, cohort=4, **settings):
    protocol = Cohort(cohort, min_clients=2, **settings)
    return Homomorphic(fed_avg(), protocol, decryptors), Mod(protocol, KEYS)


@pytest.mark.parametrize("decryptors", [1, 2])
@pytest.mark.parametrize("away", [(), (2,), (0, 3)])
def test_the_mean_is_that_of_all_who_stayed(decryptors, away):
    strategy, mod = make(decryptors)

    ((arrays, metrics),) = Run(strategy, mod, away=away).rounds(1)

    stayed = [k for k in range(4) if k not in away]
    assert np.allclose(weight((arrays, metrics)), mean(stayed), atol=OFF)
    losses = sum((k + 1) * k for k in stayed) / sum(k + 1 for k in stayed)
    assert metrics["train-loss"] == pytest.approx(losses, abs=100 / 32767)
    assert arrays["steps"].numpy() == [7]
    assert strategy.abandoned == []


def test_rounds_follow_each_other():
    strategy, mod = make()

    first, second = Run(strategy, mod).rounds(1, 2)

    assert np.array_equal(weight(first), weight(second))


def test_with_too_few_left_nobody_is_asked_to_decrypt():
    strategy, mod = make()
    asked = []
    strategy.ask = lambda *given: asked.append(given)

    assert Run(strategy, mod, away=(0, 1, 3)).rounds(1) == [(None, None)]

    assert strategy.abandoned == [(1, "1 clients are left: expected min_clients=2")]
    assert asked == []


def test_a_decryptor_that_fails_is_replaced_by_another():
    strategy, mod = make()
    asked, ask = [], strategy.ask

    def first_fails(grid, action, fields):
        asked.append([*fields])
        return ask(grid, action, fields if len(asked) > 1 else {})

    strategy.ask = first_fails
    (found,) = Run(strategy, mod).rounds(1)

    assert np.allclose(weight(found), mean(range(4)), atol=OFF)
    assert len(asked) == 2
    assert asked[0] != asked[1]


class Liar(Mod):
    """Adds one to a decrypted sum."""

    @property
    def handlers(self):
        ((action, honest),) = super().handlers.items()

        def lie(message, context):
            reply = honest(message, context)
            if int(context.node_config["partition-id"]) == 0:
                total = np.frombuffer(reply.content["secagg"]["sum"], np.uint32) + 1
                restate(reply, sum=total.tobytes())
            return reply

        return {action: lie}


def test_decryptors_who_do_not_agree_end_the_round():
    strategy, mod = make(2, cohort=3)
    lying = Liar(mod.protocol, KEYS)
    strategy.decryptors = 3

    assert Run(strategy, lying, clients=3).rounds(1) == [(None, None)]

    assert strategy.abandoned == [(1, "the clients who decrypt do not agree, or sent no words")]


def other_key(reply):
    restate(reply, key=bytes(16))


def cut(reply):
    changed = words(reply).copy()
    changed[:40] = 0
    resend(reply, changed)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (other_key, "its secret key is not the one that most clients have"),
        (cut, "a ciphertext"),
        (lambda r: resend(r, words(r)[1:]), "expected 32896 of uint32"),
        (lambda r: resend(r, words(r).view(np.uint64)), "expected 32896 of uint32"),
        (lambda r: restate(r, metrics=["loss"]), r"expected \('train-loss',\), as the others"),
        (lambda r: r.content.pop("masked"), "without masked words"),
    ],
)
def test_a_client_whose_answer_was_tampered_with_drops_out_and_the_rest_is_exact(
    spoil, reason, caplog
):
    strategy, mod = make()

    (found,) = Run(strategy, mod, spoil=lambda replies: spoil(replies[2])).rounds(1)

    without_one = [[k for k in range(4) if k != lost] for lost in range(4)]
    assert any(np.allclose(weight(found), mean(stayed), atol=OFF) for stayed in without_one)
    assert re.search(reason, caplog.text)


def test_a_ciphertext_that_reads_well_and_stands_for_something_else_ends_the_round(caplog):
    strategy, mod = make()

    def spoil(replies):
        changed = words(replies[0]).copy()
        changed[1000] ^= 1 << 20
        resend(replies[0], changed)

    assert Run(strategy, mod, spoil=spoil).rounds(1) == [(None, None)]

    assert "other key, or tampered" in caplog.text
    assert strategy.abandoned == [(1, "0 clients decrypted: expected decryptors=1")]


def test_the_server_holds_no_key():
    strategy, mod = make()
    Run(strategy, mod).rounds(1)

    assert not _keyless().has_secret_key()
    assert KEYS.of({}) not in strategy.__dict__.values()


@pytest.mark.parametrize("decryptors", [0, 3])
def test_decryptors_must_be_among_those_who_are_left(decryptors):
    with pytest.raises(ConfigError, match=rf"^decryptors={decryptors}: expected in 1\.\.2"):
        make(decryptors)


def test_a_sum_that_would_not_come_out_exact_is_refused_before_training():
    with pytest.raises(ConfigError, match=r"^protocol.max_weight=1000: expected less"):
        Homomorphic(fed_avg(), Cohort(10, bits=32))


def test_a_rule_that_needs_single_updates_is_refused():
    with pytest.raises(ConfigError, match=r"^inner=Krum: expected a rule that is linear"):
        Homomorphic(Krum(num_malicious_nodes=1), Cohort(4))


def test_without_the_extra_it_says_so_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tenseal", None)

    for build in (lambda: Homomorphic(fed_avg(), Cohort(4)), lambda: SharedKey()):
        with pytest.raises(ConfigError) as caught:
            build()
        assert str(caught.value) == (
            "tenseal=missing: expected the extra 'he': pip install 'fedmia[he]'"
        )
