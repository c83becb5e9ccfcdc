"""Stacks that cannot work, or do not do what they promise, are refused in one line."""

from dataclasses import dataclass, replace
from functools import partial

import pytest
from flwr.clientapp.mod import LocalDpMod, fixedclipping_mod, message_size_mod
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    Krum,
)

from clients.defenses.additive_sharing import AdditiveSharing as SharingMod
from clients.defenses.anomaly import Anomaly as AnomalyMod
from clients.defenses.secagg_plus import SecAggPlus as SecAggMod
from fedmia import composition
from fedmia.composition import Stack
from fedmia.config import compose
from fedmia.errors import ConfigError
from fedmia.preparation import prepare
from fedmia.secagg.cohort import Cohort
from fedmia.secagg.identities import Identities
from fedmia.secagg.noise import Noise
from fedmia.secagg.protocol import Protocol
from strategies.additive_sharing import AdditiveSharing
from strategies.anomaly import Anomaly
from strategies.dp_central import DpCentral
from strategies.secagg_plus import SecAggPlus

LOCAL_DP = LocalDpMod(1.0, 1.0, 1.0, 1e-5)
CLIPPING = partial(fixedclipping_mod)
WHOLE = {"neighbors": 9, "threshold": 5}
"""A complete graph of ten clients, of whom six must stay."""


def stack(mods=None, inner=None, weights=(20,) * 10, dropout=0.0, **protocol):
    public = Protocol(**({"cohort": 10} | protocol))
    mods = {"secagg_plus": SecAggMod(public)} if mods is None else mods
    return Stack(SecAggPlus(inner or sampling(1.0), public), mods, weights, dropout)


def sampling(share, fewest=1, **settings):
    settings = {"fraction_evaluate": 0.0} | settings
    return FedAvg(fraction_train=share, min_train_nodes=fewest, **settings)


def refusal(given):
    with pytest.raises(ConfigError) as caught:
        composition.check(given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@dataclass
class Noisy(FedAvg):
    """A rule of one's own that is linear and adds noise, and says both."""

    linear = True
    adds_noise = True

    def __init__(self):
        super().__init__(fraction_evaluate=0.0)


@pytest.mark.parametrize("strategy", [FedAvg(), Krum(), Noisy()])
def test_without_secure_aggregation_all_rules_and_mods_are_let_through(strategy):
    composition.check(Stack(strategy, {"clip": CLIPPING, "noise": LOCAL_DP}, [5000, 1], 0.9))


@pytest.mark.parametrize("mods", [{}, {"clip": CLIPPING}, {"noise": LOCAL_DP}])
def test_what_happens_before_the_masks_is_let_through(mods):
    given = stack()
    composition.check(Stack(given.strategy, {**given.mods, **mods}, given.weights))
    composition.check(stack(inner=Noisy(), mods={**given.mods, **mods}))


# strategies


@pytest.mark.parametrize("rule", ["Krum", "FedMedian", "FedTrimmedAvg", "MultiKrum", "Bulyan"])
def test_a_rule_per_client_inside_is_named_by_the_key_that_was_set(rule):
    config = compose(
        [
            "strategy=secagg_plus",
            "pool=serial",
            f"strategy.inner._target_=flwr.serverapp.strategy.{rule}",
        ]
    )
    with pytest.raises(ConfigError) as caught:
        prepare(config)
    assert str(caught.value) == (
        f"strategy.inner={rule}: expected a rule that is linear in the updates, of which the "
        "server sees only the sum; others can be given sums of groups (strategy=grouped_sums)"
    )


@pytest.mark.parametrize(
    "kind",
    [DifferentialPrivacyServerSideFixedClipping, DifferentialPrivacyClientSideFixedClipping],
)
def test_clipping_and_rules_around_secure_aggregation_are_refused(kind):
    given = stack()
    around = kind(given.strategy, 1.0, 1.0, 10)
    twice = kind(around, 1.0, 1.0, 10)

    said = refusal(Stack(around, given.mods, given.weights))
    assert said == (
        "strategy.strategy=SecAggPlus: expected to be the outermost strategy: "
        f"{kind.__name__} around it would take masked words for updates; none can be checked under "
        "secagg_plus, but norms be bounded at the clients (client/defenses=[secagg_plus, clipping])"
        " and sums of groups be compared (strategy=grouped_sums)"
    )
    assert refusal(Stack(twice, given.mods, given.weights)).startswith(
        "strategy.strategy.strategy=SecAggPlus: expected to be the outermost"
    )


def test_clipping_by_the_server_inside_is_refused():
    with pytest.raises(
        ConfigError, match=r"^inner=DifferentialPrivacyServerSide.*: expected a rule"
    ):
        stack(inner=DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1.0, 1.0, 10))


# mods


@pytest.mark.parametrize(
    ("mods", "reason"),
    [
        (
            ["clip", "secagg_plus"],
            "secagg_plus first: clip outside of it would be clipping after masking",
        ),
        (
            ["noise", "secagg_plus"],
            "secagg_plus first: noise outside of it would be clipping and noise after masking",
        ),
        (
            ["size", "secagg_plus"],
            "secagg_plus first: size outside of it would be a change after masking",
        ),
        (["clip"], "secagg_plus once: strategy=secagg_plus needs it at the clients"),
        ([], "secagg_plus once: strategy=secagg_plus needs it at the clients"),
        (
            ["secagg_plus", "again"],
            "secagg_plus once: strategy=secagg_plus needs it at the clients",
        ),
        (
            ["secagg_plus", "sharing"],
            "no sharing, which needs strategy=additive_sharing; it is SecAggPlus",
        ),
    ],
)
def test_its_own_mod_comes_first_and_once(mods, reason):
    given = stack()
    there = {
        **given.mods,
        "again": given.mods["secagg_plus"],
        "clip": CLIPPING,
        "noise": LOCAL_DP,
        "size": message_size_mod,
        "sharing": SharingMod(Cohort(10)),
    }

    said = refusal(Stack(given.strategy, {name: there[name] for name in mods}, given.weights))

    assert said == f"client/defenses=[{', '.join(mods)}]: expected {reason}"


def test_a_mod_without_its_strategy_is_refused():
    given = stack()
    said = refusal(Stack(FedAvg(), given.mods, given.weights))
    assert said == (
        "client/defenses=[secagg_plus]: expected no secagg_plus, which needs strategy=secagg_plus; "
        "it is FedAvg"
    )


@pytest.mark.parametrize(
    ("detector", "mods", "said"),
    [
        ("robust_z", ["clip"], None),
        ("vae", ["anomaly", "clip"], None),
        ("vae", ["clip"], "anomaly once: strategy=anomaly needs it at the clients"),
        (
            "vae",
            ["clip", "anomaly"],
            "anomaly first: clip outside of it would be clipping of what the strategy reads",
        ),
        (
            "robust_z",
            ["anomaly"],
            "no anomaly, which needs strategy=anomaly; it is Anomaly with detector=robust_z",
        ),
    ],
)
def test_a_learned_detector_needs_its_mod_outermost(detector, mods, said):
    there = {"anomaly": AnomalyMod(), "clip": CLIPPING}
    strategy = Anomaly(sampling(1.0), 30, detector)
    given = Stack(strategy, {name: there[name] for name in mods}, (20,) * 10)
    if said is None:
        composition.check(given)
        return
    assert refusal(given) == f"client/defenses=[{', '.join(mods)}]: expected {said}"


def test_a_mod_of_a_wrapped_strategy_is_found_behind_the_outer_ones():
    strategy = Anomaly(Anomaly(sampling(1.0), 30, "vae"), 30)
    composition.check(Stack(strategy, {"anomaly": AnomalyMod()}, (20,) * 10))


def test_rounds_in_which_nobody_can_stand_out_are_refused():
    said = refusal(Stack(Anomaly(sampling(0.3), 30), {}, (20,) * 10))
    assert said == (
        "strategy.detector=robust_z: expected a strategy that asks at least 4 clients a round; "
        "3 are asked"
    )


def test_what_flags_do_to_an_epsilon_is_noted():
    central = DpCentral(sampling(1.0), 1.0, 30, 10, epsilon=8.0)
    isolating, flagging = (Anomaly(central, 30, isolate=isolate) for isolate in (True, False))
    (line,) = composition.notes(Stack(isolating, {}, (20,) * 10))
    assert line.startswith("strategy: no ε: which clients are left out depends on all updates")
    (line,) = composition.notes(Stack(flagging, {}, (20,) * 10))
    assert line == "strategy: flags are made of updates without noise: ε is not theirs"
    assert composition.notes(Stack(Anomaly(sampling(1.0), 30), {}, (20,) * 10)) == []


@pytest.mark.parametrize("name", ["secagg_plus", "additive_sharing", "homomorphic"])
def test_the_command_line_says_the_same(name):
    with pytest.raises(
        ConfigError, match=rf"^client/defenses=\[{name}\]: expected no {name}, which"
    ):
        prepare(compose(["pool=serial", f"client/defenses=[{name}]"]))
    with pytest.raises(ConfigError, match=rf"^client/defenses=\[\]: expected {name} once"):
        prepare(compose(["pool=serial", f"strategy={name}", "client/defenses=[]"]))


def test_both_sides_have_the_same_public_parameters():
    other = {"secagg_plus": SecAggMod(Protocol(cohort=10, bits=8))}
    assert refusal(stack(other)) == (
        "client.defenses.secagg_plus.protocol.bits=8: expected 16, as in strategy.protocol"
    )
    strange = {"secagg_plus": SecAggMod(Cohort(10))}
    assert refusal(stack(strange)) == (
        "client.defenses.secagg_plus.protocol=Cohort: expected Protocol, as strategy.protocol"
    )


def test_both_sides_have_as_many_parties():
    public = Cohort(10)
    given = Stack(
        AdditiveSharing(sampling(1.0), public, 3), {"sharing": SharingMod(public)}, [1] * 10
    )
    assert refusal(given) == ("client.defenses.sharing.parties=2: expected 3, as strategy.parties")


def signing(**identities):
    public = Protocol(cohort=10, malicious_server=True)
    mod = SecAggMod(public, Identities(**identities))
    return Stack(SecAggPlus(sampling(1.0), public), {"secagg_plus": mod}, [20] * 10)


def test_every_client_needs_an_identity_where_they_are_derived_and_used(tmp_path):
    assert refusal(signing(clients=9)) == (
        "client.defenses.secagg_plus.identities.clients=9: expected at least 10, one a client"
    )
    composition.check(signing(clients=10))
    composition.check(signing(folder=str(tmp_path)))
    composition.check(stack({"secagg_plus": SecAggMod(Protocol(cohort=10), Identities())}))


def test_other_weights_than_the_number_of_examples_are_refused():
    by_loss = sampling(1.0, weighted_by_key="train-loss")
    assert refusal(stack(inner=by_loss)) == (
        "strategy.inner.weighted_by_key=train-loss: expected num-examples, the one weight that is "
        "summed with the updates"
    )
    composition.check(Stack(by_loss, {}, [20] * 10))


def evaluating(allow):
    public = Protocol(cohort=10)
    mods = {"secagg_plus": SecAggMod(public, allow_evaluation=allow), "clip": CLIPPING}
    return stack(mods, inner=sampling(1.0, fraction_evaluate=0.5))


def test_evaluation_in_the_open_has_to_be_allowed():
    composition.check(evaluating(allow=True))
    assert refusal(evaluating(allow=False)) == (
        "strategy.inner.fraction_evaluate=0.5: expected 0, or "
        "client.defenses.secagg_plus.allow_evaluation=true: its metrics are in the open"
    )


# noise


def test_noise_is_counted_once():
    noise = {"noise": Noise("skellam", bits=24), "max_weight": 1}
    given = stack(**noise)
    composition.check(given)

    with_local = Stack(given.strategy, {**given.mods, "ldp": LOCAL_DP}, given.weights)
    assert refusal(with_local) == (
        "strategy.protocol.noise.mechanism=skellam: expected none beside "
        "client.defenses.ldp=LocalDpMod, or noise would be counted twice"
    )
    assert refusal(stack(inner=Noisy(), **noise)) == (
        "strategy.protocol.noise.mechanism=skellam: expected none beside "
        "strategy.inner=Noisy, or noise would be counted twice"
    )


def test_noise_is_held_to_the_length_of_the_model():
    noise = {"noise": Noise("skellam", bits=9), "max_weight": 1}
    given = stack(**noise)
    composition.check(given)
    assert refusal(replace(given, length=100)).startswith(
        "strategy.protocol.noise.bits=9: expected in [10, 63] for cohort=10, length=100"
    )


def test_honest_shares_of_more_clients_than_are_asked_are_refused():
    noise = {"noise": Noise("skellam", min_survivors=7), "max_weight": 1}
    composition.check(stack(inner=sampling(0.8), **noise))
    assert refusal(stack(inner=sampling(0.7), **noise)) == (
        "strategy.protocol.noise.min_survivors=7: expected at most 6, so that with those who may "
        "collude no more have to stay than the 7 clients asked in a round"
    )


# numbers


def test_a_client_with_more_records_than_the_weights_allow_is_named():
    composition.check(stack(weights=[1000] * 10))
    assert refusal(stack(weights=[20, 1001, *[20] * 8])) == (
        "strategy.protocol.max_weight=1000: expected at least 1001, the records of client 1; or 1, "
        "and all clients count the same"
    )
    composition.check(stack(weights=[20, 1001, *[20] * 8], max_weight=1))


def test_all_clients_of_a_round_fit_into_the_cohort():
    assert refusal(stack(cohort=9)) == (
        "strategy.protocol.cohort=9: expected at least 10, the clients asked in a round"
    )
    composition.check(stack(cohort=9, inner=sampling(0.9)))
    assert "cohort=5: expected at least 6" in refusal(stack(cohort=5, inner=sampling(0.1, 6)))


def test_a_threshold_that_a_whole_round_cannot_reach_is_refused():
    assert refusal(stack(inner=sampling(0.5), **WHOLE)) == (
        "strategy.protocol.threshold=5: expected at most 4, the others of 5 clients asked in a "
        "round (null with cohort=5 chooses one)"
    )
    composition.check(stack(inner=sampling(0.6), **WHOLE))


def test_the_line_names_what_was_set_where_the_threshold_was_not():
    assert refusal(stack(inner=sampling(0.5))) == (
        "strategy.protocol.cohort=10: expected 5, the clients asked in a round "
        "(strategy.inner.fraction_train=0.5); of more, 5 others have to stay"
    )
    composition.check(stack(inner=sampling(0.5), cohort=5))
    assert refusal(stack(inner=sampling(0.5), neighbors=9)) == (
        "strategy.protocol.neighbors=9: expected at most 4, the others of 5 clients asked in a "
        "round (null with cohort=5 chooses them)"
    )
    assert refusal(stack(inner=sampling(0.2))) == (
        "strategy.inner.fraction_train=0.2: expected so much that at least 3 of 10 clients are "
        "asked; 2 have no sum of others"
    )
    assert refusal(sharing(inner=sampling(0.1), min_clients=2)) == (
        "strategy.inner.fraction_train=0.1: expected so much that at least 2 of 10 clients are "
        "asked; 1 have no sum of others"
    )


def test_more_dropout_than_the_threshold_bears_is_refused():
    composition.check(stack(dropout=0.4, **WHOLE))
    assert refusal(stack(dropout=0.41, **WHOLE)) == (
        "client.dropout=0.41: expected at most 0.4, so that on average 6 of 10 clients stay, as it "
        "takes"
    )
    sparse = {"cohort": 100, "weights": [20] * 100, "neighbors": 20, "threshold": 19}
    assert refusal(stack(dropout=0.09, **sparse)) == (
        "client.dropout=0.09: expected at most 0.05, so that on average 19 of 20 neighbours stay, "
        "as it takes"
    )


def sharing(dropout=0.0, inner=None, **protocol):
    public = Cohort(10, **protocol)
    strategy = AdditiveSharing(inner or sampling(1.0), public)
    return Stack(strategy, {"sharing": SharingMod(public)}, [20] * 10, dropout)


def test_the_alternatives_are_held_to_the_same_rules():
    composition.check(sharing())
    assert refusal(sharing(max_weight=19)).startswith(
        "strategy.protocol.max_weight=19: expected at"
    )
    assert refusal(sharing(inner=sampling(0.2))) == (
        "strategy.protocol.min_clients=3: expected at most 2, the clients asked in a round"
    )
    assert refusal(sharing(dropout=0.75)).startswith("client.dropout=0.75: expected at most 0.7")


# notes


METRICS = "metrics are clipped at ±100.0 (strategy.protocol.metric_range)"


def test_unmasked_evaluation_and_more_dropout_than_planned_are_noted():
    assert composition.notes(stack()) == composition.notes(sharing()) == [METRICS]
    rule = FedAvg(fraction_evaluate=0.5)
    assert composition.notes(stack(inner=rule, dropout=0.2, **WHOLE)) == [
        "evaluation metrics are not masked (strategy.inner.fraction_evaluate=0.5)",
        METRICS,
        "client.dropout=0.2 is more than strategy.protocol.dropout=0.1: rounds may be abandoned",
    ]
    assert composition.notes(Stack(rule, {}, [20] * 10, 0.2)) == []


def test_no_metrics_are_noted_where_none_are_sent():
    noise = {"noise": Noise("skellam", bits=24), "max_weight": 1}
    assert composition.notes(stack(**noise)) == []


def test_derived_identities_are_noted_where_they_are_used(tmp_path):
    assert composition.notes(signing(clients=10)) == [
        "client.defenses.secagg_plus.identities.folder=null: the identities are derived from the "
        "seed, which protects nothing on real machines",
        METRICS,
    ]
    assert composition.notes(signing(folder=str(tmp_path))) == [METRICS]


def test_poisson_rounds_are_refused_before_their_rate_is():
    settings = {"epsilon": 8.0, "sampling": "poisson", "rate": 0.1, "clip_by": "clients"}
    inner = DpCentral(sampling(1.0), 1.0, 5, 10, **settings)
    assert refusal(stack(inner=inner)).startswith("strategy.inner.sampling=poisson: expected fixed")


def test_preparing_an_experiment_asks_for_all_this_before_training():
    base = ["strategy=secagg_plus", "pool=serial"]
    prepare(compose(base))
    for override, start in (
        (
            "strategy.protocol.max_weight=10",
            "strategy.protocol.max_weight=10: expected at least 20",
        ),
        ("strategy.protocol.cohort=5", "strategy.protocol.cohort=5: expected at least 10"),
        ("client.dropout=0.7", "client.dropout=0.7: expected at most"),
    ):
        with pytest.raises(ConfigError) as caught:
            prepare(compose([*base, override]))
        assert str(caught.value).startswith(start)
