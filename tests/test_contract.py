"""What every plug-in must honour, found by walking ``conf/``: nobody edits this file to add one."""

import inspect
import os
import re
from copy import deepcopy
from functools import cache

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from fedmia import config, experiment
from fedmia.attacks.base import Attack
from fedmia.config import CONF
from fedmia.errors import ConfigError
from fedmia.settings import attack_names

GROUPS = [g for g in config.groups() if g not in ("defense", "experiment")]
OPTIONS = [(g, o) for g in GROUPS for o in config.options(g)]
SMALL = [
    "num_rounds=2",
    "num_clients=4",
    "candidates.nonmembers=30",
    "metrics.bootstrap=100",
    "train.local_epochs=1",
]
SMALLER = {
    "canaries/crafted": ["canaries.steps=2", "canaries.count=20"],
    "client/attackers/alie": ["client.attackers.alie.fraction=0.5"],  # they are two at least
    "client/attackers/min_max": ["client.attackers.min_max.fraction=0.5"],
    "model/resnet18": ["model.width=8", "model.groups=8"],
    "pool/flower": [f"pool.num_cpus={os.cpu_count()}"],  # one process for all clients
    "pool/ray": ["pool.num_actors=1"],
    "strategy/angular_trimmed_mean": ["strategy.byzantine=1"],
    "strategy/anomaly": ["strategy.warmup_rounds=1"],
    "strategy/bulyan": ["strategy.byzantine=0"],
    "strategy/grouped_sums": ["num_clients=7"],
    "strategy/krum": ["strategy.byzantine=0"],
}
"""What makes an option as quick to run as the others; one without an entry runs as it is."""


def plugins(group, option):
    """Every mapping with a ``_target_`` in an option's file, with its name inside the file.

    A default ``group@key: option`` stands for the key that it fills.
    """
    node = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{option}.yaml"))
    filled = [k for d in node.pop("defaults", []) if isinstance(d, dict) for k in d]
    node |= {k.partition("@")[2]: {} for k in filled if "@" in k and "_global_" not in k}
    return {option: node} if "_target_" in node else node


def plain(name):
    return name.replace("_", "").lower()


@cache
def composed(*overrides):
    """Return the configuration, not to be changed, or the refusal of it."""
    try:
        return config.compose(overrides)
    except ConfigError as refusal:
        return refusal


def small(group, option, folder):
    """Return the configuration of a short run with this option; raise what refuses it."""
    settings = composed(f"{group}={option}")
    if isinstance(settings, ConfigError):
        raise settings
    settings, quick = deepcopy(settings), composed("pool=serial", "partition=iid")
    if group != "pool":
        settings.pool = quick.pool
    overrides = [f"output_dir={folder}", *SMALL, *SMALLER.get(f"{group}/{option}", [])]
    if group == "dataset":
        settings.partition = quick.partition
        overrides.append("partition.samples_per_client=6")
    return config.amend(settings, overrides)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=["/".join(o) for o in OPTIONS])
class TestEveryOption:
    def test_names_the_class_that_its_file_is_named_after(self, group, option):
        for name, node in plugins(group, option).items():
            made = get_object(node["_target_"])
            module = inspect.getmodule(made).__name__
            if module.startswith("flwr"):
                continue
            allowed = {plain(option), plain(name), plain(module.rpartition(".")[2])}
            assert plain(made.__name__) in allowed

    def test_lists_every_field_of_its_constructor(self, group, option):
        for name, node in plugins(group, option).items():
            made = get_object(node["_target_"])
            taken = {p for p in inspect.signature(made).parameters if p != "self"}
            listed = {k for k in node if not k.startswith("_")}
            assert listed <= taken, name
            if not inspect.getmodule(made).__name__.startswith("flwr"):
                assert listed == taken, name

    def test_says_in_its_first_line_what_it_is(self, group, option):
        assert config.description(group, option)

    def test_composes_or_says_what_is_missing(self, group, option):
        missing = [
            v for node in plugins(group, option).values() for v in node.values() if v == "???"
        ]
        settings = composed(f"{group}={option}")
        if missing:
            said = rf"{group}\.\w+=\?\?\?: expected a value"
            assert re.fullmatch(said, str(settings))
            return
        alone = rf"{group.replace('/', '.')}\.\S+=\$\S+: expected to be resolvable .*"
        refused = isinstance(settings, ConfigError)
        assert not refused or re.fullmatch(alone, str(settings)), "only what another option gives"


def asked():
    """Every option but the attacks; those of the pools start processes."""
    for group, option in OPTIONS:
        marks = [pytest.mark.slow] if group == "pool" else []
        if group != "attack":
            yield pytest.param(group, option, id=f"{group}/{option}", marks=marks)


@pytest.mark.parametrize(("group", "option"), list(asked()))
def test_every_option_runs_or_says_in_one_line_why_not(group, option, tmp_path):
    refusal = None
    try:
        settings = small(group, option, tmp_path)
        stage = experiment.check(settings)
    except ConfigError as error:
        refusal = str(error)
    if refusal is not None:
        key = rf"({group}|{group.replace('/', '.')}|candidates|num_clients)"
        assert re.fullmatch(rf"{key}\S*=.*: expected .*", refusal)
        return
    result = experiment.run(settings, tmp_path / "run", stage=stage)
    assert result["status"] == "ok", result["reason"]
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


@pytest.fixture(scope="module")
def attacked(request, tmp_path_factory):
    """One run with every attack that is asked about; some look at rounds without a client."""
    asked = [
        item.callspec.params["attack"]
        for item in request.session.items
        if item.path == request.path and "attacked" in item.fixturenames
    ]
    overrides = [f"attack=[{','.join(asked)}]", "pool=serial", *SMALL]
    overrides += ["num_rounds=4", "strategy.fraction_train=0.75"]
    folder = tmp_path_factory.mktemp("attacked") / "run"
    result = experiment.run(config.compose(overrides), folder)
    assert (folder / "report.html").stat().st_size > 10_000
    return result


@pytest.mark.parametrize("attack", config.options("attack"), ids=lambda o: f"attack/{o}")
def test_every_attack_runs(attack, attacked):
    names = plugins("attack", attack)
    rows = {row["name"]: row for row in attacked["attacks"] if row["name"] in names}
    assert rows.keys() == names.keys()
    assert {row["status"] for row in rows.values()} <= {"ok", "not_applicable"}, rows
    assert any(row["status"] == "ok" for row in rows.values()), rows


@pytest.mark.parametrize("option", config.options("attack"))
def test_every_attack_credits_its_paper(option):
    bibliography = (CONF.parent / "docs" / "references.bib").read_text()
    for node in plugins("attack", option).values():
        made = get_object(node["_target_"])
        assert issubclass(made, Attack)
        assert f"{{{made.reference}," in bibliography


@pytest.mark.parametrize("option", config.options("experiment"))
def test_every_experiment_composes_and_names_its_command(option):
    text = (CONF / "experiment" / f"{option}.yaml").read_text()
    assert text.startswith("# @package _global_\n")
    assert f"fedmia run experiment={option}" in text
    config.compose([f"experiment={option}"])


@pytest.mark.parametrize("option", config.options("defense"))
def test_every_line_of_the_defence_page_composes_and_names_itself(option):
    settings = config.compose([f"defense={option}"])
    assert settings.defense == option
    assert config.description("defense", option)


def test_all_attacks_are_found_by_walking_the_group():
    everything = set(attack_names(config.compose(["attack=all"])))
    named = {name for o in config.options("attack") for name in plugins("attack", o)}
    assert everything == named
