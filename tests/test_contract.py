"""What every plug-in must honour, found by walking ``conf/``: nobody edits this file to add one."""

import inspect
import re

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from fedmia import config, experiment
from fedmia.attacks.base import Attack
from fedmia.config import CONF
from fedmia.errors import ConfigError

GROUPS = [g for g in config.groups() if g != "experiment"]
OPTIONS = [(g, o) for g in GROUPS for o in config.options(g)]
SMALL = [
    "pool=serial",
    "num_rounds=2",
    "num_clients=4",
    "candidates.nonmembers=30",
    "metrics.bootstrap=100",
    "train.local_epochs=1",
]


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
        if missing:
            with pytest.raises(ConfigError, match=rf"^{group}\.\w+=\?\?\?: expected a value$"):
                config.compose([f"{group}={option}"])
            return
        refusal = ""
        try:
            config.compose([f"{group}={option}"])
        except ConfigError as error:
            refusal = str(error)
        alone = rf"{group.replace('/', '.')}\.\S+=\$\S+: expected to be resolvable .*"
        assert not refusal or re.fullmatch(alone, refusal), "only what belongs to another option"

    def test_runs_or_says_in_one_line_why_not(self, group, option, tmp_path):
        overrides = [f"{group}={option}", f"output_dir={tmp_path}", *SMALL]
        if group == "attack":  # some look at rounds with and without a client
            overrides += ["num_rounds=4", "strategy.fraction_train=0.75"]
        if group == "pool":
            overrides.remove("pool=serial")
        if group == "dataset":
            overrides += ["partition=iid", "partition.samples_per_client=6"]
        refusal = None
        try:
            settings = config.compose(overrides)
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


def test_all_attacks_are_found_by_walking_the_group():
    everything = set(config.compose(["attack=all"]).attack)
    named = {name for o in config.options("attack") for name in plugins("attack", o)}
    assert everything == named
