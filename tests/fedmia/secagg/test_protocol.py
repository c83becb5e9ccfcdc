import numpy as np
import pytest

from fedmia.errors import ConfigError
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.noise import Noise
from fedmia.secagg.odds import degree_for
from fedmia.secagg.protocol import Protocol, between, context_of, fingerprint, roll

SKELLAM = Noise("skellam")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cohort": 2}, "cohort=2: expected at least 3 clients"),
        ({"cohort": 3, "dropout": 0, "malicious_server": True}, "cohort=3: expected at least 4"),
        ({"corrupt": 0.5}, r"corrupt=0.5: expected in \[0, 0.5\)"),
        ({"dropout": -0.1}, r"dropout=-0.1: expected in \[0, 0.5\)"),
        ({"neighbors": 10}, r"neighbors=10: expected in 2\.\.9, less than cohort=10"),
        ({"neighbors": 1}, r"neighbors=1: expected in 2\.\.9"),
        ({"neighbors": 5}, "neighbors=5: expected an even number, or 9 for the complete graph"),
        ({"neighbors": 4, "malicious_server": True}, "neighbors=4: expected 9 or null"),
        ({"neighbors": 4, "threshold": 5}, r"threshold=5: expected in 2..4, the number of neigh"),
        ({"threshold": 1}, r"threshold=1: expected in 2..9, the number of neighbours"),
        ({"threshold": 5, "malicious_server": True}, "threshold=5: expected at least 6, or a ser"),
        (
            {"cohort": 60, "corrupt": 0.45, "threshold": 43, "malicious_server": True},
            "threshold=43: expected at least 44, or a server that lies",
        ),
        (
            {"cohort": 60, "corrupt": 0.45, "dropout": 0.3, "malicious_server": True},
            "corrupt=0.45: expected less, or a dropout of less than 0.3: 44 of 59 neighbours",
        ),
        (
            {"corrupt": 0.4, "threshold": 4},
            r"threshold=4: expected in 5..9, .* collude with corrup",
        ),
        (
            {"cohort": 50, "neighbors": 20, "threshold": 5},
            r"threshold=5: expected in 6\.\.20, the number of neighbours, of whom more may collude",
        ),
        (
            {"cohort": 50, "neighbors": 10},
            "neighbors=10: expected at least 12, or null, with cohort=50, corrupt=0.1, dropout=0.1",
        ),
        ({"cohort": 3}, "dropout=0.1: expected at most 0, which leaves 2 of 2 neighbours at n=3"),
        ({"cohort": 3, "corrupt": 0.4, "neighbors": 2}, "corrupt=0.4: expected at most 0.333"),
        ({"modulus_bits": 32, "max_weight": 10**6}, "modulus_bits=32: expected at least 40, for"),
        ({"noise": SKELLAM}, "max_weight=1000: expected 1 with noise"),
        (
            {"noise": Noise("skellam", min_survivors=11), "max_weight": 1},
            r"noise.min_survivors=11: expected in 1..9, of cohort=10 less 1 who may collude",
        ),
        ({"cohort": 100, "noise": Noise("skellam", bits=9), "max_weight": 1}, r"noise.bits=9: exp"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(values, said):
    with pytest.raises(ConfigError, match=said) as caught:
        Protocol(**{"cohort": 10, **values})
    assert "\n" not in str(caught.value)


def test_sizes_follow_from_the_cohort():
    assert (Protocol(10).degree, Protocol(10).shares_needed) == (9, 5)
    assert (Protocol(16).degree, Protocol(17).degree) == (15, degree_for(17, 0.1, 0.1)[0])
    assert Protocol(10).fewest(10) == 6
    assert Protocol(10, neighbors=6).shares_needed == 4
    signed = Protocol(10, malicious_server=True)
    assert (signed.degree, signed.shares_needed) == (9, 7)
    assert Protocol(2000).degree < 200


def test_so_many_must_survive():
    whole = Protocol(10, neighbors=9, threshold=4, dropout=0.2)
    assert whole.fewest(10) == 5
    sparse = Protocol(10, neighbors=4, threshold=2, corrupt=0.1, dropout=0.2)
    # at 10, one colluder and 2 lost are fewer than 4; 5 clients of 4 neighbours are complete
    assert [sparse.fewest(n) for n in (10, 6, 5)] == [8, 4, 3]
    honest = {"corrupt": 0, "threshold": 2, "dropout": 0.1}
    assert Protocol(30, neighbors=4, **honest).fewest(30) == 27
    assert Protocol(30, neighbors=10, **honest).fewest(30) == 21


@pytest.mark.parametrize(
    ("settings", "honest", "fewest"),
    [
        ({"cohort": 10}, 5, 6),  # threshold 5 and the client itself, one colludes
        # 22 neighbours: with 21 - 10 lost the graph holds together; 10 collude
        ({"cohort": 100}, 79, 89),
        ({"cohort": 100, "corrupt": 0}, 89, 89),
        ({"cohort": 10, "min": 8}, 8, 9),
        ({"cohort": 10, "min": 2}, 2, 6),
        ({"cohort": 100, "min": 85}, 85, 95),
        ({"cohort": 5, "corrupt": 0.4, "threshold": 3, "neighbors": 4}, 2, 4),
    ],
)
def test_noise_is_whole_without_the_shares_of_those_who_collude(settings, honest, fewest):
    noise = Noise("skellam", min_survivors=settings.pop("min", None))
    protocol = Protocol(**settings, max_weight=1, noise=noise)
    assert protocol.honest_shares == honest
    assert protocol.mechanism(100).min_survivors == honest
    assert protocol.fewest(protocol.cohort) == fewest


def test_too_few_bits_for_the_model_are_refused_when_its_length_is_known():
    # 4k² + cohort + 1 in 14 bits: k² = 2.02·log(2d·2^40), d = 1 and d = 2^20
    protocol = Protocol(4, max_weight=1, noise=Noise("skellam", bits=9))
    protocol.check(1)
    with pytest.raises(
        ConfigError, match=r"noise.bits=9: expected in \[10, 63\] for cohort=4, len"
    ):
        protocol.check(2**20)
    Protocol(4).check(2**20)


def test_with_a_largest_weight_of_one_all_count_the_same():
    protocol = Protocol(4, max_weight=1)
    like = {"w": np.zeros(3)}
    clients = [({"w": np.full(3, v)}, w) for v, w in ((0.2, 17), (0.4, 1), (0.6, 900))]
    words = [protocol.encode(delta, {}, weight, b"")[0] for delta, weight in clients]
    mean = protocol.decode(sum(words), like, [], 3, b"")
    np.testing.assert_allclose(mean.delta["w"], 0.4, atol=protocol.codec.error_bound)
    assert mean.weight == 3
    with pytest.raises(ProtocolError, match="weight 0"):
        protocol.encode(like, {}, 0, b"")


@pytest.mark.parametrize("noise", [Noise(), SKELLAM])
def test_so_many_words_are_sent_as_are_said(noise):
    protocol = Protocol(4, max_weight=1, noise=noise)
    like = {"w": np.zeros((3, 5), np.float32), "seen": np.zeros(2, np.int64)}
    words, names = protocol.encode(like, {"loss": 1.0}, 1, b"c")
    assert words.shape == (protocol.length(like, names),)
    assert words.dtype == protocol.codec.dtype
    assert names == ([] if noise else ["loss"])


def test_contexts_and_statements_tell_everything_apart():
    session = b"s" * 16
    contexts = {context_of(session, 1), context_of(session, 2), context_of(b"t" * 16, 1)}
    assert len(contexts) == 3
    (c, d, _) = contexts
    ends = {between(x, p, *e) for x in (c, d) for p in ("share", "keys") for e in ((1, 2), (2, 1))}
    assert len(ends) == 8
    rolls = {roll(c, [1, 2]), roll(d, [1, 2]), roll(c, [1]), roll(c, [1, 2, 3]), roll(c, [])}
    assert len(rolls) == 5
    assert roll(c, [2, 1]) == roll(c, [1, 2])


def test_a_fingerprint_tells_names_types_shapes_values_and_order_apart():
    w = np.arange(4, dtype=np.float32)
    models = [
        {"w": w},
        {"v": w},
        {"w": w.reshape(2, 2)},
        {"w": w.astype(np.float64)},
        {"w": w.view(np.int32)},
        {"w": w + np.float32(1e-7)},
        {"w": w[:2], "v": w[2:]},
        {"v": w[2:], "w": w[:2]},
    ]
    assert len({fingerprint(m) for m in models}) == len(models)
    assert fingerprint({"w": np.arange(8, dtype=np.float32)[::2] / 2}) == fingerprint({"w": w})
