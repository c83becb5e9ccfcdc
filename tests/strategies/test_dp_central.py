import math

import numpy as np
import pytest
from central_rounds import clipped, fed_avg, play
from scipy.stats import binom, chi2, kstest, norm
from secagg_federations import fedavg as hidden_fedavg
from secagg_federations import run

from fedmia.errors import ConfigError
from fedmia.privacy.accounting import Account, Sampling, gaussian_release
from fedmia.privacy.claim import RELEASED, Setting
from fedmia.privacy.cost import Neighbours
from fedmia.privacy.randomness import gaussian_source
from fedmia.secagg.protocol import Protocol
from strategies.dp_central import DpCentral

ADD, REPLACE = Neighbours.ADD_REMOVE, Neighbours.REPLACE_ONE
NONE = {"epsilon": math.inf}


def central(clients=10, rounds=30, clip=1.0, **settings):
    return DpCentral(fed_avg(), clip=clip, rounds=rounds, clients=clients, **settings)


def nothing(size):
    return lambda client, number: np.zeros(size)


def is_std(values, sigma):
    """A two-sided χ² test at 1e-6 of the variance, and a KS test of the law."""
    statistic = float(np.sum(values**2)) / sigma**2
    assert chi2.ppf(5e-7, values.size) < statistic < chi2.isf(5e-7, values.size)
    assert kstest(values / sigma, "norm").pvalue > 1e-6


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"clipping": "per_layer"},
        {"weighting": "capped", "weight_cap": 3},
        {"clip_by": "clients"},
        {"secure_noise": True},
        {"sampling": "poisson", "rate": 0.3},
        {"sampling": "fixed", "rate": 0.3, "neighbours": "replace_one"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_noise_of_the_sum_is_z_times_the_clip_whatever_is_clipped_how(settings):
    strategy = central(noise_multiplier=1.5, clip=0.4, **settings)
    (found,) = play(strategy, nothing(40_000), 10, 40_000)
    is_std(found.change * strategy.cohort, 1.5 * 0.4)


def test_noise_has_no_part_in_common_with_the_updates():
    """The same seed, with and without updates, differs by the clipped sum and nothing else."""

    def update(client, number):
        return np.random.default_rng(client).normal(size=50)

    (quiet,) = play(central(noise_multiplier=1.0), nothing(50), 10, 50)
    (found,) = play(central(noise_multiplier=1.0), update, 10, 50)
    expected = sum(clipped(update(c, 1), 1.0) for c in range(10)) / 10
    np.testing.assert_allclose(found.change - quiet.change, expected, atol=1e-6)


def test_noise_of_rounds_is_independent_and_repeats_with_the_seed_alone():
    def run(**settings):
        return [
            r.change
            for r in play(
                central(noise_multiplier=1.0, **settings), nothing(2000), 10, 2000, rounds=3
            )
        ]

    first, again, other = run(), run(), run(seed=1)
    np.testing.assert_array_equal(first, again)
    secure, twice = run(secure_noise=True), run(secure_noise=True)
    series = [*first, *other, *secure, *twice]
    correlation = np.corrcoef(series) - np.eye(12)
    assert np.abs(correlation).max() < 0.12


def test_infinite_epsilon_clips_and_adds_nothing():
    (found,) = play(central(**NONE), lambda *_: np.array([3.0, 4.0]), 10, 2)
    np.testing.assert_allclose(found.change, [0.6, 0.8], atol=1e-5)


def test_weights_are_capped_and_the_denominator_is_the_number_of_clients():
    examples = [1, 2, 3, 4, 50, 0, -3, 2.5, 4, 4]
    strategy = central(weighting="capped", weight_cap=4, **NONE)
    (found,) = play(
        strategy,
        lambda client, _: 2 * np.eye(10)[client],
        10,
        10,
        metrics=lambda client: {"num-examples": examples[client]},
    )
    expected = np.array([0.25, 0.5, 0.75, 1, 1, 0, 0, 0, 1, 1]) / 10
    np.testing.assert_allclose(found.change, expected, atol=1e-5)


def test_with_equal_weights_what_clients_say_of_their_sizes_is_not_read():
    strategy = central(**NONE)
    (found,) = play(
        strategy,
        lambda client, _: 2 * np.eye(10)[client],
        10,
        10,
        metrics=lambda client: {"num-examples": 10**client},
    )
    np.testing.assert_allclose(found.change, 0.1, rtol=1e-5)


class TestSampling:
    def drawn(self, rounds, **settings):
        strategy = central(clients=20, noise_multiplier=1.0, rounds=rounds, **settings)
        return np.array([strategy.participants(t) for t in range(1, rounds + 1)])

    @pytest.mark.parametrize("secure", [False, True])
    @pytest.mark.parametrize("rate", [0.3, 0.6])
    def test_poisson_draws_each_client_with_the_rate_independently(self, rate, secure):
        drawn = self.drawn(2000, sampling="poisson", rate=rate, secure_noise=secure)
        low, high = binom.interval(1 - 1e-6, 2000, rate)
        assert ((low <= drawn.sum(axis=0)) & (drawn.sum(axis=0) <= high)).all()
        correlation = np.corrcoef(drawn.T) - np.eye(20)
        assert np.abs(correlation).max() < 5.5 / math.sqrt(2000)
        # sizes of cohorts are binomial: their variance too
        assert 0.85 < drawn.sum(axis=1).var() / (20 * rate * (1 - rate)) < 1.15

    @pytest.mark.parametrize("secure", [False, True])
    def test_fixed_draws_exactly_so_many_all_equally_often(self, secure):
        settings = {"sampling": "fixed", "rate": 0.25, "neighbours": "replace_one"}
        drawn = self.drawn(2000, secure_noise=secure, **settings)
        assert set(drawn.sum(axis=1)) == {5}
        low, high = binom.interval(1 - 1e-6, 2000, 0.25)
        assert ((low <= drawn.sum(axis=0)) & (drawn.sum(axis=0) <= high)).all()

    def test_all_draws_all(self):
        assert self.drawn(3, sampling="all").all()

    def test_seeded_draws_repeat_and_secure_ones_do_not(self):
        settings = {"sampling": "poisson", "rate": 0.5}
        np.testing.assert_array_equal(self.drawn(9, **settings), self.drawn(9, **settings))
        assert (self.drawn(9, **settings) != self.drawn(9, seed=1, **settings)).any()
        secure = settings | {"secure_noise": True}
        assert (self.drawn(9, **secure) != self.drawn(9, **secure)).any()

    @pytest.mark.parametrize(
        ("settings", "cohort"),
        [
            ({"sampling": "poisson", "rate": 0.25}, 5.0),
            ({"sampling": "poisson", "rate": 0.26}, 5.2),
            ({"sampling": "fixed", "rate": 0.26, "neighbours": "replace_one"}, 5.0),
            ({"sampling": "all"}, 20.0),
        ],
    )
    def test_the_sum_is_divided_by_the_expected_cohort_whoever_came(self, settings, cohort):
        strategy = central(clients=20, **settings, **NONE)
        assert strategy.cohort == pytest.approx(cohort)
        for found in play(strategy, lambda *_: np.full(4, 0.1), 20, 4, rounds=5):
            expected = len(found.asked) * 0.1 / cohort
            np.testing.assert_allclose(found.change, expected, atol=1e-6)


class TestAccount:
    @pytest.mark.parametrize(
        ("settings", "sampling", "neighbours"),
        [
            ({}, Sampling("all"), ADD),
            ({"neighbours": "replace_one"}, Sampling("all"), REPLACE),
            ({"sampling": "poisson", "rate": 0.2}, Sampling("poisson", 0.2), ADD),
            (
                {"sampling": "fixed", "rate": 0.2, "neighbours": "replace_one"},
                Sampling("fixed", sample=2, population=10),
                REPLACE,
            ),
        ],
        ids=["all", "replace", "poisson", "fixed"],
    )
    def test_is_of_the_sampler_that_runs(self, settings, sampling, neighbours):
        strategy = central(noise_multiplier=1.7, delta=1e-6, **settings)
        (claim,) = strategy.claims(Setting((5,) * 10, 30))
        assert claim.account == Account(gaussian_release(1.7, sampling), neighbours, 1e-6)

    def test_against_participants_a_sample_of_fixed_size_promises_nothing(self):
        fixed = {"noise_multiplier": 1.0, "sampling": "fixed", "neighbours": "replace_one"}
        (claim,) = central(rate=0.5, **fixed).claims(Setting((5,) * 10, 30))
        assert claim.holds_against == ("aggregate", "final_model")
        assert claim.reasons[-1].startswith("nothing is promised against participants")
        everybody = central(rate=1.0, **fixed)
        poisson = central(rate=0.5, noise_multiplier=1.0, sampling="poisson")
        for strategy in (everybody, poisson):
            (claim,) = strategy.claims(Setting((5,) * 10, 30))
            assert claim.holds_against == RELEASED

    def test_adaptive_clipping_costs_what_z_does(self):
        strategy = central(clients=100, noise_multiplier=1.7, adaptive=True)
        (claim,) = strategy.claims(Setting((5,) * 100, 30))
        assert claim.account == Account(gaussian_release(1.7), ADD, 1e-5)

    def test_noise_is_found_for_the_budget(self):
        strategy = central(epsilon=4.0, rounds=30)
        assert 3.99 < strategy.account.epsilon(30) <= 4.0
        assert strategy.noise_multiplier == pytest.approx(5.9, abs=0.1)  # science.md: T=30, ε=4
        assert strategy.affordable == 30

    def test_the_budget_ends_training_at_the_right_round(self):
        strategy = central(noise_multiplier=3.0, epsilon=4.0, rounds=30)
        found = play(strategy, nothing(2), 10, 2, rounds=30)
        rounds = sum(r.change is not None for r in found)
        assert strategy.account.epsilon(rounds) <= 4.0 < strategy.account.epsilon(rounds + 1)
        assert strategy.stopped[0] == rounds + 1

    def test_says_who_takes_part(self):
        for settings, said in (
            ({"sampling": "poisson", "rate": 0.2}, "each client takes part with probability 0.2"),
            (
                {"sampling": "fixed", "rate": 0.2, "neighbours": "replace_one"},
                "2 of 10 clients take part, drawn without replacement, and who does is not told",
            ),
            ({}, "all clients take part in every round"),
        ):
            (claim,) = central(noise_multiplier=1.0, **settings).claims(Setting((5,) * 10, 30))
            assert any(said in reason for reason in claim.reasons)


def test_no_epsilon_where_an_abandoned_round_tells_how_many_were_drawn():
    hidden, seen = Setting((5,) * 10, 30, hidden="secagg_plus"), Setting((5,) * 10, 30)
    poisson = {"noise_multiplier": 1.0, "sampling": "poisson"}
    (claim,) = central(rate=0.5, **poisson).claims(hidden)
    assert claim.account is None
    assert claim.reasons[0].startswith("no ε: under secagg_plus a round with too few clients")
    for strategy, setting in (
        (central(rate=0.5, **poisson), seen),
        (central(rate=1.0, **poisson), hidden),
        (central(noise_multiplier=1.0), hidden),
    ):
        (claim,) = strategy.claims(setting)
        assert claim.account == strategy.account


def test_under_secure_aggregation_it_gets_the_sum_of_the_mean():
    protocol = Protocol(5, clip=2.0, bits=28, max_weight=1)

    def ended(**noise):
        inner = DpCentral(hidden_fedavg(5), 9.0, 2, 5, clip_by="clients", **noise)
        return run(protocol, inner=inner).params

    plain = run(protocol, inner=hidden_fedavg(5)).params
    start = np.array([0.5, -0.25])
    np.testing.assert_allclose(ended(**NONE)["b"], plain["b"], atol=1e-5)
    assert np.abs(plain["b"] - start).max() > 0.01
    noisy = ended(noise_multiplier=0.01)
    assert 1e-4 < np.abs(noisy["b"] - plain["b"]).max() < 0.2


class TestAdaptiveClip:
    CLIENTS = 40

    def norms(self):
        """Norms whose median is 1 and whose 0.8-quantile is 2.04."""
        return np.exp(0.85 * norm.ppf((np.arange(self.CLIENTS) + 0.5) / self.CLIENTS))

    def final(self, rounds, **settings):
        norms = self.norms()
        strategy = central(clients=self.CLIENTS, rounds=rounds, adaptive=True, **settings)

        def update(client, number):
            return norms[client] * np.eye(3)[client % 3]

        play(strategy, update, self.CLIENTS, 3, rounds=rounds)
        return strategy

    @pytest.mark.parametrize("quantile", [0.5, 0.8])
    @pytest.mark.parametrize("first", [0.1, 10.0])
    def test_converges_to_the_quantile_of_the_norms(self, first, quantile):
        strategy = self.final(60, clip=first, quantile=quantile, clip_lr=0.4, noise_multiplier=0.5)
        clips = np.array([clip for _, clip in strategy.clips])
        assert [number for number, _ in strategy.clips] == list(range(1, 61))
        assert clips[0] == first
        aim = np.exp(0.85 * norm.ppf(quantile))
        assert clips[-10:] == pytest.approx(aim, rel=0.25)

    def test_feeding_the_clipped_share_as_flower_does_diverges(self):
        norms, clip = self.norms(), 0.1
        for _ in range(60):
            clip *= math.exp(-0.2 * (np.mean(norms > clip) - 0.5))
        assert clip < 1e-3

    def test_two_rounds_by_hand(self):
        z, sigma, rate = 0.8, 2.0, 0.3
        norms = np.array([0.5, 0.9, 1.1, 3.0, 0.2])
        strategy = central(
            clients=5, noise_multiplier=z, adaptive=True, bit_noise=sigma, clip_lr=rate
        )
        found = play(strategy, lambda c, _: norms[c] * np.eye(5)[c], 5, 5, rounds=2)
        larger = (z**-2 - (2 * sigma) ** -2) ** -0.5
        assert larger > z
        clip = 1.0
        for number, seen in enumerate(found, start=1):
            noise = gaussian_source(False, 0, "central dp", number)(5)
            expected = (np.minimum(norms, clip) + larger * clip * noise) / 5
            np.testing.assert_allclose(seen.change, expected, atol=1e-5)
            assert strategy.clips[number - 1] == (number, pytest.approx(clip))
            bits = np.where(norms <= clip, 0.5, -0.5).sum()
            bits += sigma * gaussian_source(False, 0, "dp quantile", number)(1)[0]
            clip *= math.exp(-rate * (bits / 5 + 0.5 - 0.5))
        assert strategy.clip == pytest.approx(clip)

    def test_without_noise_the_share_is_exact(self):
        strategy = central(clients=4, adaptive=True, clip_lr=1.0, quantile=0.25, **NONE)
        play(strategy, lambda client, _: np.array([0.8 + 0.1 * client]), 4, 1)
        assert strategy.clip == pytest.approx(math.exp(-(3 / 4 - 0.25)))

    def test_the_bits_take_a_twentieth_of_the_cohort_for_noise(self):
        strategy = central(clients=100, noise_multiplier=1.0, adaptive=True)
        assert strategy._adapting.bit_noise == 5.0


class TestClipsOfClients:
    """The metric dp-clip: what a client that chose its own clip says it kept."""

    def noise(self, told, clip=2.0, **settings):
        strategy = central(noise_multiplier=1.0, clip=clip, clip_by="clients", **settings)
        (found,) = play(strategy, nothing(20_000), 10, 20_000, metrics=lambda client: told(client))
        return float(found.change.std()) * 10

    def test_the_largest_scales_the_noise(self):
        told = self.noise(lambda c: {"num-examples": 1, "dp-clip": 0.1 * (c + 1)})
        assert told == pytest.approx(1.0, rel=0.03)

    @pytest.mark.parametrize(
        "told",
        [
            lambda c: {"num-examples": 1},
            lambda c: {"num-examples": 1, **({"dp-clip": 0.1} if c else {})},
            lambda c: {"num-examples": 2, "dp-clip": 0.1},
            lambda c: {"num-examples": 1, "dp-clip": 0.0},
            lambda c: {"num-examples": 1, "dp-clip": math.nan},
            lambda c: {"num-examples": 1, "dp-clip": 9.0},
        ],
        ids=["none says", "one is silent", "means", "zero", "nan", "beyond the clip"],
    )
    def test_unless_all_say_it_of_themselves_the_strategys_own_does(self, told):
        assert self.noise(told) == pytest.approx(2.0, rel=0.03)

    def test_where_the_server_clips_it_is_not_read(self):
        strategy = central(noise_multiplier=1.0)
        (found,) = play(strategy, nothing(20_000), 10, 20_000, metrics=lambda c: {"dp-clip": 0.1})
        assert float(found.change.std()) * 10 == pytest.approx(1.0, rel=0.03)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "noise_multiplier=None: expected a number, or epsilon to find it for"),
        ({"epsilon": 0}, "epsilon=0: expected more than 0, or null"),
        (
            {"epsilon": 3, "noise_multiplier": 0},
            "noise_multiplier=0: expected more than 0, or null, with epsilon=3: no ε is had "
            "without noise",
        ),
        ({"epsilon": 3, "delta": 1.0}, "delta=1.0: expected in (0, 1)"),
        ({"clip": 0.0, **NONE}, "clip=0.0: expected more than 0 and finite"),
        ({"clip": 0.0, "adaptive": True, **NONE}, "clip=0.0: expected more than 0 and finite"),
        ({"clipping": "soft", **NONE}, "clipping=soft: expected one of flat, per_layer"),
        ({"weighting": "size", **NONE}, "weighting=size: expected one of equal, capped"),
        ({"weight_cap": 5, **NONE}, "weight_cap=5: expected null with weighting=equal"),
        ({"weighting": "capped", **NONE}, "weight_cap=None: expected at least 1"),
        (
            {"weighting": "capped", "weight_cap": 5, "clip_by": "clients", **NONE},
            "weighting=capped: expected equal with clip_by=clients, whose sum has no weights",
        ),
        (
            {"neighbours": "swap", **NONE},
            "neighbours=swap: expected one of add_remove, replace_one",
        ),
        ({"sampling": "coin", **NONE}, "sampling=coin: expected one of poisson, fixed, all"),
        ({"rate": 0.5, **NONE}, "rate=0.5: expected 1 with sampling=all"),
        ({"sampling": "poisson", "rate": 0, **NONE}, "rate=0: expected in (0, 1]"),
        ({"sampling": "poisson", "rate": 1.5, **NONE}, "rate=1.5: expected in (0, 1]"),
        (
            {"sampling": "fixed", "rate": 0.5, **NONE},
            "neighbours=add_remove: expected replace_one with sampling=fixed, for which alone an "
            "account of it is known",
        ),
        (
            {"sampling": "fixed", "rate": 0.01, "neighbours": "replace_one", **NONE},
            "rate=0.01: expected so much that at least one of 10 clients is drawn",
        ),
        (
            {"adaptive": True, "clipping": "per_layer", **NONE},
            "clipping=per_layer: expected flat with adaptive=true",
        ),
        (
            {"adaptive": True, "clip_by": "clients", **NONE},
            "clip_by=clients: expected server with adaptive=true, which counts the updates within "
            "the clip",
        ),
        ({"adaptive": True, "quantile": 1.0, **NONE}, "quantile=1.0: expected in (0, 1)"),
        ({"adaptive": True, "clip_lr": 0, **NONE}, "clip_lr=0: expected more than 0 and finite"),
        (
            {"adaptive": True, "noise_multiplier": 1.0},
            "bit_noise=None: expected more than 0.5, half of the noise multiplier 1 (null takes "
            "cohort/20=0.5)",
        ),
        (
            {"adaptive": True, "noise_multiplier": 3.0, "bit_noise": 1.2},
            "bit_noise=1.2: expected more than 1.5, half of the noise multiplier 3",
        ),
        (
            {"adaptive": True, "bit_noise": 1.2, **NONE},
            "bit_noise=1.2: expected null or 0 where no noise is added",
        ),
        ({"bit_noise": 1.2, **NONE}, "bit_noise=1.2: expected null with adaptive=false"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(settings, said):
    with pytest.raises(ConfigError) as error:
        central(**settings)
    assert str(error.value) == said


def test_a_delta_of_one_in_the_clients_is_warned_of():
    assert central(epsilon=1.0, delta=0.1).warnings == ["delta=0.1 is not below 1/clients=0.1"]
    assert central(epsilon=1.0, delta=0.01).warnings == []
