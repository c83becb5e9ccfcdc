import re
import sys
import textwrap
from functools import cache

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fedmia import config, experiment
from fedmia.config import CONF
from fedmia.errors import ConfigError
from fedmia.settings import attack_names

SMALL = [
    "pool=serial",
    "num_rounds=1",
    "num_clients=4",
    "candidates.nonmembers=30",
    "metrics.bootstrap=100",
    "train.local_epochs=1",
    "partition.samples_per_client=10",
    "attack=yeom_loss",
]


def refusal(*overrides, **options):
    with pytest.raises(ConfigError) as caught:
        config.compose(overrides, **options)
    said = str(caught.value)
    assert "\n" not in said
    return said


def knobs():
    """Every plain, typed value of every option's file: where it stands, and an override of it."""
    for group in config.groups():
        if group in ("defense", "experiment"):
            continue
        for option in config.options(group):
            node = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{option}.yaml"))
            fill = [f"{group}.{key}=x" for key, value in node.items() if value == "???"]
            named = {"": node} if "_target_" in node else {f".{k}": v for k, v in node.items()}
            for name, plugin in named.items():
                for key, value in plugin.items():
                    if isinstance(value, bool | int | float):
                        knob = f"{group}{name}.{key}".replace("/", ".")
                        yield pytest.param(
                            [f"{group}={option}", *fill], knob, id=f"{option} {knob}"
                        )


def first_knobs():
    """One knob of every group."""
    found = {}
    for case in knobs():
        found.setdefault(case.values[0][0].partition("=")[0], case)
    return list(found.values())


@cache
def composed(*overrides):
    """Return a configuration that is not to be changed."""
    return config.compose(overrides)


class TestCompose:
    def test_the_default_is_the_documented_one(self):
        default = config.compose()
        assert (default.seed, default.num_rounds, default.num_clients) == (0, 30, 10)
        assert default.dataset._target_ == "fedmia.datasets.digits.Digits"
        assert default.pool._target_ == "fedmia.grid.ray.Ray"
        assert default.strategy.min_available_nodes == 10

    def test_overrides_are_applied_in_order_and_keep_their_types(self):
        settings = config.compose(["num_clients=7", "num_clients=5", "train.lr=1"])
        assert settings.num_clients == 5
        assert settings.strategy.min_available_nodes == 5
        assert settings.train.lr == 1

    @pytest.mark.parametrize(("option", "key"), list(knobs()))
    def test_a_word_is_no_value_for_any_knob_that_takes_another(self, option, key):
        with pytest.raises(ConfigError, match=rf"^{re.escape(key)}=word: expected .*") as caught:
            config.amend(composed(*option), [f"{key}=word"])
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(("option", "key"), first_knobs())
    def test_a_word_is_refused_on_the_command_line_too(self, option, key):
        assert refusal(*option, f"{key}=word").startswith(f"{key}=word: expected ")

    def test_the_value_named_is_the_one_refused(self):
        assert refusal("num_rounds=2", "num_rounds=x") == "num_rounds=x: expected an integer"

    def test_a_dictionary_is_merged_key_by_key(self):
        assert config.compose(["train={lr:0.2}"]).train.lr == 0.2
        assert refusal("train={rate:0.2}").startswith("train.rate: unknown key")
        assert refusal("candidates=5") == "candidates=5: expected its keys, one by one"

    def test_attacks_can_be_one_several_or_all(self):
        assert attack_names(config.compose(["attack=fedmia"])) == ["fedmia_i", "fedmia_ii"]
        both = attack_names(config.compose(["attack=[yeom_loss,fedmia]"]))
        assert both == ["yeom_loss", "yeom_loss_local", "fedmia_i", "fedmia_ii"]
        assert {*both, "loss_series", "avg_cosine"} <= set(config.compose(["attack=all"]).attack)

    def test_no_attack_at_all_is_refused(self):
        assert refusal("attack=[]").startswith("attack=")

    def test_an_experiment_is_merged_below_the_overrides(self):
        quick = config.compose(["experiment=quick", "num_clients=3"])
        assert quick.pool._target_ == "fedmia.grid.serial.Serial"
        assert (quick.num_rounds, quick.num_clients) == (10, 3)

    def test_a_deleted_key_falls_back_to_the_constructors_default(self):
        settings = config.compose(["~train.lr"])
        assert "lr" not in settings.train
        assert config.build(settings, "train").lr > 0


class TestExpand:
    @pytest.mark.parametrize(
        "overrides",
        [
            ["seed=0,1,2"],
            ["seed=0,1", "strategy=fedavg,fedmedian", "num_rounds=3"],
            ["seed=range(0,6,2)", "+model.x=1,2"],
            ["train.lr=choice(0.1,0.2)", "attack=[fedmia,yeom_loss],all"],
            ["num_rounds=3"],
        ],
        ids=" ".join,
    )
    def test_the_jobs_are_those_of_hydras_own_sweeper(self, overrides):
        parsed = OverridesParser.create().parse_overrides(overrides)
        (expected,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        assert config.expand(overrides) == [list(job) for job in expected]

    def test_a_glob_picks_options(self):
        assert config.expand(["strategy=glob(*krum)"]) == [
            ["strategy=krum"],
            ["strategy=multikrum"],
        ]

    def test_what_cannot_be_parsed_is_named(self):
        with pytest.raises(ConfigError, match=r"^seed=0,\[: expected key=value"):
            config.expand(["num_rounds=1", "seed=0,["])


def test_keys_are_those_that_overrides_set():
    said = ["a.b=1", "+c=2", "~d", "++e.f=3", "client/defenses=[x]"]
    assert config.keys(said) == ["a.b", "c", "d", "e.f", "client/defenses"]


class TestBuild:
    def test_what_a_constructor_refuses_is_said_with_its_whole_path(self):
        settings = config.compose(["attack=fedmia"])
        settings.attack.fedmia_i.measurement = "luck"
        with pytest.raises(ConfigError, match=r"^attack\.fedmia_i\.measurement=luck: expected"):
            config.build(settings, "attack.fedmia_i")

    def test_what_is_not_there_is_none(self):
        assert config.build(config.compose(), "client.defenses") is None

    def test_what_cannot_be_built_says_why(self):
        settings = config.compose()
        settings.train = {"_target_": "builtins.open", "file": "/no/such/file"}
        with pytest.raises(ConfigError, match=r"^train=builtins.open: expected to be built \(.*No"):
            config.build(settings, "train")


class TestSaved:
    def test_a_saved_configuration_is_read_back_whole(self, tmp_path):
        settings = config.compose(["dataset=wine", "attack=fedmia"])
        config.save(settings, tmp_path / ".hydra", ["dataset=wine"])
        assert config.load(tmp_path / ".hydra" / "config.yaml") == settings
        assert OmegaConf.load(tmp_path / ".hydra" / "overrides.yaml") == ["dataset=wine"]

    @pytest.mark.parametrize("text", [None, "seed: [", "- 1", "seed: many", "", "nonsense: 1"])
    def test_anything_else_is_refused_in_one_line(self, tmp_path, text):
        file = tmp_path / "config.yaml"
        if text is not None:
            file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            config.load(file)
        assert str(caught.value).startswith(f"{file}: expected the configuration of a run (")
        assert "\n" not in str(caught.value)


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """Write plug-ins outside the repository: a module on the path, and their yaml files."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(module, yamls):
        (tmp_path / "outside_plugins.py").write_text(textwrap.dedent(module))
        for name, text in yamls.items():
            file = tmp_path / "conf" / f"{name}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text))
        return [tmp_path / "conf"]

    yield write
    sys.modules.pop("outside_plugins", None)


def run(tmp_path, overrides, dirs):
    settings = config.compose([*SMALL, f"output_dir={tmp_path}", *overrides], dirs)
    return experiment.run(settings, tmp_path / "run")


class TestPluginsFromOutside:
    def test_are_listed_beside_the_others(self, outside):
        dirs = outside("", {"attack/mine": "# My own.\nmine: {}", "toy/one": "# A toy."})
        assert "mine" in config.options("attack", dirs)
        assert "fedmia" in config.options("attack", dirs)
        assert config.description("attack", "mine", dirs) == "My own."
        assert "toy" in config.groups(dirs)
        assert "toy" not in config.groups()

    def test_in_a_folder_that_is_not_there_are_refused(self, tmp_path):
        said = refusal(config_dirs=[tmp_path / "no"])
        assert said == f"--config-dir={tmp_path / 'no'}: expected a folder of configuration groups"

    def test_an_option_that_is_nowhere_is_refused_with_theirs_in_the_list(self, outside):
        dirs = outside("", {"model/wide": "_target_: outside_plugins.Wide"})
        assert "resnet18, wide" in refusal("model=wid", config_dirs=dirs)

    def test_a_module_class_is_a_model_by_itself(self, outside, tmp_path):
        module = """
            from torch import nn

            class Flat(nn.Sequential):
                def __init__(self, pixels: int = 64):
                    super().__init__(nn.Flatten(), nn.Linear(pixels, 10))
        """
        dirs = outside(module, {"model/flat": "_target_: outside_plugins.Flat\npixels: 64"})
        assert run(tmp_path, ["model=flat"], dirs)["status"] == "ok"
        assert refusal("model=flat", "model.pixels=x", config_dirs=dirs) == (
            "model.pixels=x: expected an integer"
        )
        with pytest.raises(ConfigError, match=r"^model=Flat: expected to take input of shape"):
            run(tmp_path / "second", ["model=flat", "model.pixels=63"], dirs)

    def test_mods_stand_around_the_client_outermost_first(self, outside, tmp_path):
        module = """
            from dataclasses import dataclass

            seen = []

            @dataclass(frozen=True)
            class Note:
                name: str

                def __call__(self, message, context, call_next):
                    if message.metadata.message_type != "train":
                        return call_next(message, context)
                    seen.append(f"{self.name} in")
                    reply = call_next(message, context)
                    seen.append(f"{self.name} out")
                    return reply
        """
        note = "{}:\n  _target_: outside_plugins.Note\n  name: {}\n"
        dirs = outside(
            module, {f"client/defenses/{n}": note.format(n, n) for n in ("inner", "outer")}
        )
        for first, second in (("outer", "inner"), ("inner", "outer")):
            folder = tmp_path / first
            assert run(folder, [f"client/defenses=[{first},{second}]"], dirs)["status"] == "ok"
            seen = sys.modules["outside_plugins"].seen
            once = [f"{first} in", f"{second} in", f"{second} out", f"{first} out"]
            assert seen == once * 4
            seen.clear()
        said = refusal("client/defenses=[x]", config_dirs=dirs)
        assert said.startswith("client/defenses=x: expected one of ")
        assert {"inner,", "outer,", "secagg_plus,"} <= set(said.split())
        said = refusal("client/defenses=[outer]", "client.defenses.outer.nam=x", config_dirs=dirs)
        assert said.startswith("client.defenses.outer.nam: unknown key; did you mean name?")


@pytest.mark.parametrize(("clients", "malicious", "fits"), [(4, 1, True), (4, 2, False)])
def test_krum_must_be_left_with_a_neighbour(clients, malicious, fits):
    overrides = ["strategy=multikrum", f"num_clients={clients}"]
    overrides.append(f"strategy.num_malicious_nodes={malicious}")
    if fits:
        assert config.compose(overrides).strategy.num_malicious_nodes == malicious
    else:
        with pytest.raises(
            ConfigError, match=r"^strategy\.num_malicious_nodes=2: expected at most"
        ):
            config.compose(overrides)


def test_infinity_becomes_a_word_that_json_has():
    settings = config.compose(["strategy=dp_central", "strategy.epsilon=inf"])
    assert config.to_dict(settings)["strategy"]["epsilon"] == "inf"
