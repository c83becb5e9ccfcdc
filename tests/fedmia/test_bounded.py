"""Stacks in which noise would not be what is promised of it are refused in one line."""

import math

import pytest
from flwr.serverapp.strategy import FedAvg
from torch import nn

from clients.defenses.adversarial_regularization import AdversarialRegularization
from clients.defenses.clipping import Clipping
from clients.defenses.distillation import Distillation
from clients.defenses.dp_sgd import DpSgd
from clients.defenses.early_stopping import EarlyStopping
from clients.defenses.federated_dropout import FederatedDropout as FederatedDropoutMod
from clients.defenses.local_dp import LocalDp
from clients.defenses.qsgd import Qsgd
from clients.defenses.random_sparsification import RandomSparsification
from clients.defenses.secagg_plus import SecAggPlus as SecAggMod
from clients.defenses.sensitivity_clip import SensitivityClip
from clients.defenses.sign_sgd import SignSgd
from clients.defenses.soteria import Soteria
from clients.defenses.top_k import TopK
from fedmia import bounded
from fedmia.errors import ConfigError
from fedmia.secagg.protocol import Protocol
from fedmia.stack import Stack
from strategies.dp_central import DpCentral
from strategies.dp_ftrl import DpFtrl
from strategies.federated_dropout import FederatedDropout
from strategies.secagg_plus import SecAggPlus


def central(inner=None, **settings):
    inner = inner or FedAvg(fraction_evaluate=0.0)
    return DpCentral(inner, 1.0, 30, 10, **{"epsilon": 8.0} | settings)


def ftrl(**settings):
    inner = FedAvg(fraction_evaluate=0.0)
    return DpFtrl(inner, 1.0, 30, 10, epsilon=8.0, clip_by="clients", **settings)


def stack(strategy, mods=None, model=None):
    return Stack(strategy, mods or {}, (20,) * 10, model=model)


def masked(inner, *mods):
    protocol = Protocol(cohort=10, max_weight=1)
    named = {type(mod).__name__.lower(): mod for mod in mods}
    return stack(SecAggPlus(inner, protocol), {"secagg_plus": SecAggMod(protocol), **named})


def refusal(given):
    with pytest.raises(ConfigError) as caught:
        bounded.check(given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        stack(FedAvg(fraction_evaluate=0.0), model=nn.BatchNorm1d(3)),
        stack(central(), model=nn.GroupNorm(1, 3)),
        stack(central(), {"local_dp": LocalDp()}),
        stack(central(clip_by="clients"), {"clipping": Clipping()}),
        stack(central(clip_by="clients"), {"clipping": Clipping(), "print": print}),
        masked(central(clip_by="clients"), Clipping()),
        stack(ftrl(), {"clipping": Clipping()}),
        stack(ftrl(), {"clipping": Clipping(clipping="per_layer")}),
        masked(ftrl(), Clipping()),
        masked(FedAvg(fraction_evaluate=0.0), LocalDp()),
    ],
)
def test_what_fits_is_let_through(given):
    bounded.check(given)


@pytest.mark.parametrize("private", [{"local_dp": LocalDp()}, {"clipping": Clipping()}, None])
def test_integers_in_the_state_are_named_with_their_layer(private):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    strategy = FedAvg(fraction_evaluate=0.0) if private else central()
    line = refusal(stack(strategy, private, model))
    assert "'1' (BatchNorm1d) keeps 'num_batches_tracked' as int64; use GroupNorm" in line


def test_one_noisy_strategy_in_another():
    line = refusal(stack(central(central())))
    assert line.startswith("strategy.inner=DpCentral: expected one strategy that adds noise")


def test_clipping_by_a_server_that_sees_sums_only():
    assert refusal(masked(central())).startswith(
        "strategy.inner.clip_by=server: expected clients under secagg_plus"
    )


def test_poisson_rounds_that_would_be_given_up():
    line = refusal(masked(central(clip_by="clients", sampling="poisson", rate=0.5), Clipping()))
    assert line.startswith("strategy.inner.sampling=poisson: expected fixed or all")


def test_thresholds_that_the_server_would_have_to_see():
    inner = central(clip_by="clients", neighbours="replace_one", noise_multiplier=9.0, epsilon=None)
    assert "no sensitivityclip under secagg_plus" in refusal(masked(inner, SensitivityClip()))


@pytest.mark.parametrize("mods", [{}, {"clipping": Clipping(), "again": Clipping()}])
def test_clip_by_clients_takes_one_mod_that_clips(mods):
    line = refusal(stack(central(clip_by="clients"), mods))
    assert "expected one mod that clips" in line
    assert line.startswith(f"client/defenses=[{', '.join(mods)}]")


@pytest.mark.parametrize(
    ("mod", "key"),
    [(Clipping(clip=2.0), "clip=2.0"), (Clipping(clipping="per_layer"), "clipping=per_layer")],
)
def test_both_sides_clip_alike(mod, key):
    line = refusal(stack(central(clip_by="clients"), {"clipping": mod}))
    assert line.startswith(f"client.defenses.clipping.{key}: expected")


def test_where_the_strategy_has_no_way_of_clipping_the_bound_alone_is_compared():
    line = refusal(stack(ftrl(), {"clipping": Clipping(clip=2.0)}))
    assert line == "client.defenses.clipping.clip=2.0: expected 1.0, as strategy.clip"


def test_nothing_changes_an_update_after_it_was_clipped():
    mods = {"print": print, "clipping": Clipping()}
    assert "expected clipping outside of print" in refusal(stack(central(clip_by="clients"), mods))


def test_a_mod_is_asked_whether_it_can_train_the_model():
    class Picky:
        def check_model(self, model):
            raise ConfigError("model=BatchNorm1d: expected another")

    line = refusal(stack(FedAvg(fraction_evaluate=0.0), {"picky": Picky()}, nn.Linear(1, 1)))
    assert line == "client.defenses.picky: model=BatchNorm1d: expected another"


REPLACED = {"neighbours": "replace_one", "noise_multiplier": 9.0, "epsilon": None}


def beside_thresholds(form="released", **settings):
    strategy = central(clip_by="clients", **{**REPLACED, **settings})
    return stack(strategy, {"sensitivity_clip": SensitivityClip(form)})


def test_released_thresholds_ask_for_replaced_neighbours_and_no_budget():
    bounded.check(beside_thresholds())
    bounded.check(beside_thresholds(epsilon=math.inf, noise_multiplier=None))
    line = refusal(beside_thresholds(neighbours="add_remove"))
    assert line.startswith("strategy.neighbours=add_remove: expected replace_one beside")
    line = refusal(beside_thresholds(epsilon=30.0))
    assert line.startswith("strategy.epsilon=30.0: expected null or inf, and noise_multiplier,")


def test_a_heuristic_takes_any_budget_since_it_promises_nothing():
    bounded.check(beside_thresholds("heuristic", neighbours="add_remove", epsilon=30.0))


def test_released_thresholds_are_not_composed_with_the_noise_of_a_tree():
    strategy = DpFtrl(FedAvg(fraction_evaluate=0.0), 1.0, 30, 10, clip_by="clients", **REPLACED)
    line = refusal(stack(strategy, {"sensitivity_clip": SensitivityClip()}))
    assert line.startswith("strategy=DpFtrl: expected one with fresh noise in every round")


def test_a_budget_that_lets_a_client_take_part_in_no_round_is_refused_before_training():
    within = DpSgd(noise_multiplier=1.0, epsilon=50.0)
    bounded.check(stack(FedAvg(fraction_evaluate=0.0), {"dp_sgd": within}))
    beyond = DpSgd(noise_multiplier=1.0, epsilon=0.01)
    line = refusal(stack(FedAvg(fraction_evaluate=0.0), {"dp_sgd": beyond}))
    assert line.startswith("client.defenses.dp_sgd.epsilon=0.01: expected at least")


@pytest.mark.parametrize("changing", [TopK(), RandomSparsification(), SignSgd(), Qsgd()])
def test_an_update_that_is_changed_after_it_was_clipped(changing):
    plain = FedAvg(fraction_evaluate=0.0)
    line = refusal(stack(plain, {"changing": changing, "clipping": Clipping()}))
    assert line == (
        "client/defenses=[changing, clipping]: expected clipping outside of changing, which may "
        "make clipped updates larger"
    )
    bounded.check(stack(plain, {"clipping": Clipping(), "changing": changing}))
    bounded.check(stack(plain, {"changing": changing, "local_dp": LocalDp()}))
    bounded.check(masked(plain, changing))


def test_what_was_trained_privately_is_not_changed_by_the_records():
    plain = FedAvg(fraction_evaluate=0.0)
    for order in ("soteria", "dp_sgd"), ("dp_sgd", "soteria"):
        mods = {"soteria": Soteria(), "dp_sgd": DpSgd()}
        line = refusal(stack(plain, {name: mods[name] for name in order}))
        assert line == (
            f"client/defenses=[{', '.join(order)}]: expected no soteria beside dp_sgd: it would "
            "change by the records what hides them"
        )
    bounded.check(stack(plain, {"local_dp": LocalDp(), "soteria": Soteria()}))


@pytest.mark.parametrize("mod", [RandomSparsification(), SignSgd(), Qsgd(), TopK()])
def test_no_running_variance_beside_a_mod_that_may_make_it_negative(mod):
    plain = FedAvg(fraction_evaluate=0.0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    assert refusal(stack(plain, {"mod": mod}, model)) == (
        "model=Sequential: expected no BatchNorm1d beside mod, which may make a running variance "
        "negative; use GroupNorm instead"
    )
    unkept = nn.BatchNorm1d(3, track_running_stats=False)
    bounded.check(stack(plain, {"mod": mod}, nn.Sequential(nn.Linear(3, 3), unkept)))
    bounded.check(stack(plain, {"soteria": Soteria()}, model))


def test_a_mod_has_the_settings_of_its_strategy():
    strategy = FederatedDropout(FedAvg(fraction_evaluate=0.0), keep=0.75)
    bounded.check(stack(strategy, {"federated_dropout": FederatedDropoutMod(0.75)}))
    expected = "client.defenses.federated_dropout.keep=0.5: expected 0.75, as strategy.keep"
    assert refusal(stack(strategy, {"federated_dropout": FederatedDropoutMod(0.5)})) == expected


def test_records_that_one_mod_holds_out_are_not_there_for_those_before_it():
    def of(count, *mods):
        named = {type(mod).__name__: mod for mod in mods}
        return Stack(FedAvg(fraction_evaluate=0.0), named, (20, count))

    stopping, against, teaching = EarlyStopping(), AdversarialRegularization(), Distillation()
    bounded.check(of(2, stopping, teaching))  # the last one listed comes first
    bounded.check(of(3, stopping, against))
    bounded.check(of(3, teaching, stopping))
    bounded.check(of(4, teaching, against, stopping))
    expected = (
        "client.defenses.Distillation.parts=2: expected clients with two records or more, one has 1"
    )
    assert refusal(of(1, stopping, teaching)) == expected
    assert refusal(of(2, teaching, stopping)) == f"{expected} beside what EarlyStopping holds out"
    both = "AdversarialRegularization, EarlyStopping"
    given = of(3, teaching, stopping, against)
    assert refusal(given) == f"{expected} beside what {both} holds out"
