import pytest
from omegaconf import OmegaConf

from fedmia.errors import ConfigError
from fedmia.plugins import check_plugin, plugins

SGD = "fedmia.training.LocalSGD"
TRIMMED = "flwr.serverapp.strategy.FedTrimmedAvg"


def node(**fields):
    return OmegaConf.create(fields)


def refused(**fields):
    with pytest.raises(ConfigError) as caught:
        check_plugin("part", node(**fields))
    return str(caught.value)


def test_plugins_are_found_at_any_depth_outer_ones_first():
    config = node(
        seed=1,
        client={"_target_": "a.B", "defenses": {"clip": {"_target_": "c.D"}}},
        attack={"x": {"_target_": "e.F"}},
    )
    found = [(path, plugin["_target_"]) for path, plugin in plugins(config)]
    assert found == [("client", "a.B"), ("client.defenses.clip", "c.D"), ("attack.x", "e.F")]


def test_what_names_no_target_is_no_plugin():
    with pytest.raises(ConfigError, match=r"^part=sgd: expected a plug-in"):
        check_plugin("part", "sgd")
    assert refused(lr=3) == "part={'lr': 3}: expected a plug-in, a mapping with the key _target_"


def test_a_target_that_cannot_be_imported_says_why():
    assert refused(_target_="LocalSGD").startswith(
        "part._target_=LocalSGD: expected to be importable (a name with its module is needed"
    )
    assert "No module named 'nowhere'" in refused(_target_="nowhere.LocalSGD")
    assert "has no attribute 'SGD'" in refused(_target_="fedmia.training.SGD")


def test_fields_are_checked_against_the_constructor():
    check_plugin("part", node(_target_=SGD, lr=1))  # an integer is a number
    assert refused(_target_=SGD, lr="fast") == "part.lr=fast: expected a number"
    assert refused(_target_=SGD, lr="???") == "part.lr=???: expected a value"
    assert refused(_target_=SGD, rate=1).startswith("part.rate: unknown key; expected one of ")


def test_a_field_without_a_default_must_be_given():
    table = "fedmia.datasets.table.Table"
    assert refused(_target_=table) == "part.path=???: expected a value"
    check_plugin("part", node(_target_=table, path="x.csv", label="y"))
    check_plugin("part", node(_target_=table, _partial_=True))


def test_what_flower_does_not_check_is_checked_here():
    assert refused(_target_=TRIMMED, beta=0.5) == "part.beta=0.5: expected in [0, 0.5)"
    check_plugin("part", node(_target_=TRIMMED, beta=0.49))


def test_no_generator_takes_a_negative_seed():
    qsgd = "clients.defenses.qsgd.Qsgd"
    assert refused(_target_=qsgd, seed=-1) == "part.seed=-1: expected at least 0"
    check_plugin("part", node(_target_=qsgd, seed=0))
