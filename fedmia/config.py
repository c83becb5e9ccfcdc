"""From overrides to one checked configuration: the only file that imports Hydra.

Whatever a user gets wrong becomes a :class:`ConfigError` of one line that names the key, the
value and what is allowed.
"""

import copy
import itertools
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fedmia.checks import check
from fedmia.errors import ConfigError, expect
from fedmia.explain import explain, unknown
from fedmia.plugins import NESTED, check_plugin
from fedmia.settings import ADAPTIVE, Config

_HERE = Path(__file__).resolve().parent
CONF = next(p for p in (_HERE / "conf", _HERE.parent / "conf") if p.is_dir())


def options(group: str, config_dirs: Sequence[Path] = ()) -> list[str]:
    """Return the options of a configuration group, found by walking its folders."""
    folders = [CONF / group, *(Path(d) / group for d in config_dirs)]
    return sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})


def groups(config_dirs: Sequence[Path] = ()) -> list[str]:
    """Return all configuration groups, nested ones with a slash."""
    found = {
        str(file.parent.relative_to(root))
        for root in (CONF, *map(Path, config_dirs))
        for file in root.rglob("*.yaml")
    }
    return sorted(found - {"."})


def description(group: str, option: str, config_dirs: Sequence[Path] = ()) -> str:
    """Return the first comment line of an option's file."""
    for root in (*map(Path, config_dirs), CONF):
        file = root / group / f"{option}.yaml"
        if file.is_file():
            lines = [x for x in file.read_text().splitlines() if x.startswith("# ")]
            texts = [x[2:] for x in lines if not x.startswith("# @package")]
            return texts[0] if texts else ""
    return ""


def compose(overrides: Sequence[str] = (), config_dirs: Sequence[Path] = ()) -> DictConfig:
    """Return the checked configuration that these overrides make of the default one.

    Raises
    ------
    ConfigError
        For an unknown key or option, a wrong type or a value out of range.
    """
    _register(config_dirs)
    _check_groups(overrides, config_dirs)
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra.compose("config", [*overrides, *_search_path(config_dirs)])
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_explain(error, overrides, config_dirs)) from None
    check(config, options)
    return config


def expand(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> list[list[str]]:
    """Return the overrides of every job of a sweep, as Hydra's basic sweeper makes them.

    Raises
    ------
    ConfigError
        If an override cannot be parsed.
    """
    choices = []
    for override in _parse(overrides):
        if not override.is_sweep_override():
            choices.append([override.input_line or ""])
            continue
        key, value = override.get_key_element(), override.value()
        if isinstance(value, Glob):
            values: Iterator[str] = iter(value.filter(options(key, config_dirs)))
        else:
            values = override.sweep_string_iterator()
        choices.append([f"{key}={v}" for v in values])
    return [list(job) for job in itertools.product(*choices)]


def keys(overrides: Sequence[str]) -> list[str]:
    """Return the keys that these overrides set."""
    return [override.get_key_element().lstrip("+~") for override in _parse(overrides)]


def launch(
    task: Callable[[DictConfig, Path], None],
    overrides: Sequence[str],
    flags: Sequence[str] = (),
    config_dirs: Sequence[Path] = (),
) -> None:
    """Run ``task(config, run_dir)`` under ``hydra.main``, once or once a job of a sweep."""
    from hydra.core.hydra_config import HydraConfig

    _register(config_dirs)

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
    def job(config: DictConfig) -> None:
        task(config, Path(HydraConfig.get().runtime.output_dir))

    before, sys.argv = sys.argv, ["fedmia", *flags, *overrides, *_search_path(config_dirs)]
    try:
        job()
    finally:
        sys.argv = before


def build(config: DictConfig, key: str, **extra: Any) -> Any:
    """Return the object that the plug-in at ``key`` describes; ``None`` where there is none.

    Raises
    ------
    ConfigError
        If a value has the wrong type or the constructor refuses it.
    """
    node = OmegaConf.select(config, key)
    if node is None:
        return None
    check_plugin(key, node)
    node = copy.deepcopy(node)
    OmegaConf.set_struct(node, False)
    for group in NESTED:
        node.pop(group, None)
    try:
        return instantiate(node, _convert_="all", **extra)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ConfigError):
            nested = re.search(r"full_key: (\S+)", str(error))
            raise ConfigError(f"{nested.group(1) if nested else key}.{cause}") from None
        reason = " ".join(str(cause).split())
        raise ConfigError(
            f"{key}={node.get('_target_')}: expected to be built ({reason})"
        ) from cause


def amend(
    config: DictConfig, overrides: Sequence[str], config_dirs: Sequence[Path] = ()
) -> DictConfig:
    """Return a saved configuration with overrides applied on top of it.

    An option chosen for a group (or, as ``group@place``, for a place) replaces what is there; a
    value changes that value alone.

    Raises
    ------
    ConfigError
        As :func:`compose`.
    """
    parsed = _parse(overrides)
    known = set(groups(config_dirs))
    chosen = {k for o in parsed if (k := o.get_key_element()).partition("@")[0] in known}
    anew = [o for o in parsed if {k := o.get_key_element(), k.split(".")[0]} & chosen]
    fresh = compose([o.input_line or "" for o in anew], config_dirs) if chosen else config
    amended = copy.deepcopy(config)
    for key in chosen:
        place = key.partition("@")[2] or key
        OmegaConf.update(amended, place, OmegaConf.select(fresh, place), merge=False)
    OmegaConf.set_struct(amended, True)
    for override in (o for o in parsed if o not in anew):
        key, value = override.get_key_element(), override.value()
        try:
            OmegaConf.update(amended, key, value)
        except OmegaConfBaseException:
            parent, _, leaf = key.rpartition(".")
            there = [str(k) for k in OmegaConf.select(amended, parent) or {}]
            raise ConfigError(unknown(leaf, parent, there)) from None
    check(amended, options)
    return amended


def to_dict(config: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration as plain values; JSON has no infinity, it is ``"inf"``."""
    plain = _finite(OmegaConf.to_container(config, resolve=True))
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items()}


def load(file: Path) -> DictConfig:
    """Read a configuration that a run saved.

    Raises
    ------
    ConfigError
        If it is missing or is not a configuration.
    """
    try:
        unsaid = {"attack": {ADAPTIVE: False}}
        config = OmegaConf.merge(OmegaConf.structured(Config), unsaid, OmegaConf.load(file))
        assert isinstance(config, DictConfig)
        check(config, options)
    except (OSError, OmegaConfBaseException, YAMLError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{file}: expected the configuration of a run ({reason})") from None
    return config


def save(config: DictConfig, folder: Path, overrides: Sequence[str]) -> None:
    """Write a configuration as Hydra does, for runs that were not started by it."""
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "config.yaml")
    OmegaConf.save(OmegaConf.create(list(overrides)), folder / "overrides.yaml")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _register(config_dirs: Sequence[Path]) -> None:
    for folder in config_dirs:
        expect(Path(folder).is_dir(), "--config-dir", folder, "a folder of configuration groups")
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    everything = {"defaults": options("attack", config_dirs)}
    store.store(group="attack", name="all", node=everything)


def _search_path(config_dirs: Sequence[Path]) -> list[str]:
    if not config_dirs:
        return []
    return [f"hydra.searchpath=[{','.join(f'file://{Path(d).resolve()}' for d in config_dirs)}]"]


def _parse(overrides: Sequence[str]) -> list[Override]:
    try:
        return list(OverridesParser.create().parse_overrides(list(overrides)))
    except HydraException as error:
        raise ConfigError(_explain(error, overrides, ())) from None


def _check_groups(overrides: Sequence[str], config_dirs: Sequence[Path]) -> None:
    """Refuse several options where one is wanted: Hydra would mix them into one without a word."""
    known = groups(config_dirs)
    several = [name for name in known if name == "attack" or "/" in name]
    for override in _parse(overrides):
        key, value = override.get_key_element(), override.value()
        if isinstance(value, list) and key in known and key not in several:
            raise ConfigError(f"{override.input_line}: expected one option, not a list")


def _explain(error: Exception, overrides: Sequence[str], config_dirs: Sequence[Path]) -> str:
    def known(parent: str) -> list[str]:
        there = groups(config_dirs)
        chosen = [o for o in overrides if "{" not in o and o.partition("=")[0] in there]
        node = OmegaConf.select(compose(chosen, config_dirs), parent) if parent else None
        return list(map(str, node if isinstance(node, DictConfig) else Config.__dataclass_fields__))

    def allowed(group: str) -> list[str]:
        return [*options(group, config_dirs), *(["all"] if group == "attack" else [])]

    return explain(error, overrides, allowed, known, _parses)


def _parses(override: str) -> bool:
    try:
        OverridesParser.create().parse_overrides([override])
    except HydraException:
        return False
    return True
