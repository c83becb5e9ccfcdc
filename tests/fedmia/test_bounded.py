"""Stacks in which noise would not be what is promised of it are refused in one line."""

import pytest
from flwr.serverapp.strategy import FedAvg
from torch import nn

from clients.defenses.clipping import Clipping
from clients.defenses.local_dp import LocalDp
from clients.defenses.secagg_plus import SecAggPlus as SecAggMod
from clients.defenses.sensitivity_clip import SensitivityClip
from fedmia import bounded
from fedmia.errors import ConfigError
from fedmia.secagg.protocol import Protocol
from fedmia.stack import Stack
from strategies.dp_central import DpCentral
from strategies.secagg_plus import SecAggPlus


def central(inner=None, **settings):
    inner = inner or FedAvg(fraction_evaluate=0.0)
    return DpCentral(inner, 1.0, 30, 10, **{"epsilon": 8.0} | settings)


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
    assert "no sensitivityclip under secagg_plus" in refusal(
        masked(inner, SensitivityClip(noise_multiplier=9.0))
    )


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


def test_nothing_changes_an_update_after_it_was_clipped():
    mods = {"print": print, "clipping": Clipping()}
    assert "expected clipping outside of print" in refusal(stack(central(clip_by="clients"), mods))


def test_a_mod_is_asked_whether_it_can_train_the_model():
    class Picky:
        def check_model(self, model):
            raise ConfigError("model=BatchNorm1d: expected another")

    line = refusal(stack(FedAvg(fraction_evaluate=0.0), {"picky": Picky()}, nn.Linear(1, 1)))
    assert line == "client.defenses.picky: model=BatchNorm1d: expected another"
