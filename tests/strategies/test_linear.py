import pytest
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg

from strategies.linear import is_linear


class Derived(FedAvg):
    """Might do anything with the updates."""


class Declared(FedAvg):
    linear = True


class Denied(FedAvg):
    linear = False


@pytest.mark.parametrize(
    "name", ["FedAvg", "FedAvgM", "FedProx", "FedAdagrad", "FedAdam", "FedYogi"]
)
def test_rules_that_need_the_mean_alone_are_linear(name):
    assert is_linear(getattr(flower, name)())


@pytest.mark.parametrize(
    "name", ["Krum", "MultiKrum", "Bulyan", "FedMedian", "FedTrimmedAvg", "QFedAvg"]
)
def test_rules_that_look_at_single_updates_are_not(name):
    settings = {"client_learning_rate": 0.1} if name == "QFedAvg" else {}
    assert not is_linear(getattr(flower, name)(**settings))


def test_a_strategy_of_ones_own_has_to_say_so():
    assert [is_linear(kind()) for kind in (Derived, Declared, Denied)] == [False, True, False]
