import numpy as np
import pytest
from executions import Crew, plain_sum

from fedmia.errors import ConfigError
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.noise import Noise
from fedmia.secagg.protocol import Protocol

LIKE = {"w": np.zeros((40, 50), np.float32), "seen": np.zeros(1, np.int64)}
NODES = list(range(6))


def noisy(mechanism="skellam", clip=2.0, **settings):
    return Protocol(6, max_weight=1, noise=Noise(mechanism, clip, **settings))


def encoded(protocol, context, value=0.01):
    delta = {"w": np.full((40, 50), value, np.float32), "seen": np.ones(1, np.int64)}
    return {n: protocol.encode(delta, {"loss": 1.0}, 30, context)[0] for n in NODES}


@pytest.mark.parametrize("mechanism", ["discrete_gaussian", "skellam"])
def test_the_mean_under_masks_is_the_truth_and_the_stated_noise(mechanism):
    protocol = noisy(mechanism, noise_multiplier=0.5, min_survivors=4)
    crew = Crew(protocol, NODES)
    words = encoded(protocol, crew.execution.context)
    total, _ = crew.run(words)
    np.testing.assert_array_equal(total, plain_sum(words, NODES))
    mean = protocol.decode(total, LIKE, [], 6, crew.execution.context)
    error = mean.delta["w"].astype(float) - 0.01  # ‖update‖ = 0.01·√2000 < 2: not clipped
    # of 6 shares of which 4 make up σ = 0.5·2, in the mean of 6
    sigma = 0.5 * 2.0 * np.sqrt(6 / 4) / 6
    assert abs(error.mean()) < 5 * sigma / np.sqrt(error.size)
    assert abs(error.std() / sigma - 1) < 5 / np.sqrt(2 * error.size)
    assert (mean.weight, mean.metrics, mean.clipped) == (6, {}, None)
    assert list(mean.delta) == ["w"]


def test_a_long_update_is_cut_to_the_clip():
    protocol = noisy(noise_multiplier=1e-3, clip=1.0)
    total = plain_sum(encoded(protocol, b"c", value=7.0), NODES)
    mean = protocol.decode(total, LIKE, [], 6, b"c").delta["w"]
    assert np.linalg.norm(mean) == pytest.approx(1.0, abs=0.02)


def test_the_sum_of_too_few_is_not_read():
    protocol = noisy(min_survivors=4)  # and one of six who may collude
    words = encoded(protocol, b"c")
    with pytest.raises(ProtocolError, match="4 clients: expected at least 5, or noise of min"):
        protocol.decode(plain_sum(words, NODES[:4]), LIKE, [], 4, b"c")
    assert protocol.decode(plain_sum(words, NODES[:5]), LIKE, [], 5, b"c").weight == 5


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_masks_that_do_not_cancel_are_noticed_under_noise_too(bits):
    protocol = noisy(bits=bits)
    crew = Crew(protocol, NODES, models={2: b"x" * 32})
    total, _ = crew.run(encoded(protocol, crew.execution.context))
    with pytest.raises(ProtocolError, match="the masks do not cancel"):
        protocol.decode(total, LIKE, [], 6, crew.execution.context)


def test_another_number_of_words_or_of_clients_is_refused():
    protocol = noisy()
    total = plain_sum(encoded(protocol, b"c"), NODES)
    with pytest.raises(ProtocolError, match=r"\(2048,\) words: expected 2049"):
        protocol.decode(total[:-1], LIKE, [], 6, b"c")
    with pytest.raises(ProtocolError, match="the masks do not cancel"):
        protocol.decode(total, LIKE, [], 5, b"c")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"mechanism": "gaussian"}, "mechanism=gaussian: expected one of none, discrete_gaussian"),
        ({"bits": 33}, r"bits=33: expected in 2\.\.32"),
        ({"bits": 4}, r"bits=4: expected in \["),
        ({"clip": 0.0}, "clip=0.0: expected a finite number > 0"),
        ({"noise_multiplier": -1.0}, "noise_multiplier=-1.0: expected a finite number > 0"),
        ({"min_survivors": 0}, "min_survivors=0: expected null or at least 1"),
        ({"min_survivors": -3}, "min_survivors=-3: expected null or at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        Noise(**{"mechanism": "skellam", **values})


def test_without_a_mechanism_there_is_none():
    assert not Noise()
    assert Noise("discrete_gaussian")
    assert Noise("skellam")
    assert Noise(noise_multiplier=0.0).mechanism == "none"
