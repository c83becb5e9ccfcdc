"""From overrides to one checked configuration: the only file that imports Hydra.

Whatever a user gets wrong becomes a :class:`ConfigError` of one line that names the key, the
value and what is allowed.
"""

import copy
import difflib
import importlib
import inspect
import itertools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, field, make_dataclass
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedmia.errors import ConfigError, expect

_HERE = Path(__file__).resolve().parent
CONF = next(p for p in (_HERE / "conf", _HERE.parent / "conf") if p.is_dir())

_TYPES = {"Integer": "an integer", "Float": "a number", "Boolean": "true or false"}
_PLAIN = (int, float, bool, str)

# Flower's strategies check none of these.
_BOUNDS: dict[str, tuple[Callable[[float], bool], str]] = {
    "fraction_train": (lambda v: 0 < v <= 1, "in (0, 1]"),
    "fraction_evaluate": (lambda v: 0 <= v <= 1, "in [0, 1]"),
    "min_train_nodes": (lambda v: v >= 0, "at least 0"),
    "min_evaluate_nodes": (lambda v: v >= 0, "at least 0"),
    "min_available_nodes": (lambda v: v >= 0, "at least 0"),
    "beta": (lambda v: 0 <= v < 0.5, "in [0, 0.5)"),
    "server_momentum": (lambda v: 0 <= v < 1, "in [0, 1)"),
    "num_malicious_nodes": (lambda v: v >= 0, "at least 0"),
    "num_nodes_to_select": (lambda v: v >= 1, "at least 1"),
}


@dataclass
class CandidatesConfig:
    """Which records attacks are asked about."""

    nonmembers: int = 900
    null_run: bool = False


@dataclass
class Config:
    """The shape of every configuration; plug-ins have the shape of their constructors."""

    seed: int = 0
    num_rounds: int = 30
    num_clients: int = 10
    output_dir: str = "runs"
    candidates: CandidatesConfig = field(default_factory=CandidatesConfig)
    dataset: Any = MISSING
    partition: Any = MISSING
    model: Any = MISSING
    train: Any = MISSING
    pool: Any = MISSING
    strategy: Any = MISSING
    client: Any = MISSING
    observer: Any = MISSING
    attack: Any = MISSING
    metrics: Any = MISSING


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
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra.compose("config", [*overrides, *_search_path(config_dirs)])
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_explain(error, overrides, config_dirs)) from None
    _check(config)
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
    _check_plugin(key, node)
    node = copy.deepcopy(node)
    OmegaConf.set_struct(node, False)
    for group in _GROUPS:
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


def to_dict(config: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration as plain values."""
    plain = OmegaConf.to_container(config, resolve=True)
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
        config = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(file))
    except (OSError, OmegaConfBaseException, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{file}: expected the configuration of a run ({reason})") from None
    assert isinstance(config, DictConfig)
    return config


def save(config: DictConfig, folder: Path, overrides: Sequence[str]) -> None:
    """Write a configuration as Hydra does, for runs that were not started by it."""
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "config.yaml")
    OmegaConf.save(OmegaConf.create(list(overrides)), folder / "overrides.yaml")


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


def _check(config: DictConfig) -> None:
    known = list(Config.__dataclass_fields__)
    for key in map(str, config):
        if key not in known:
            raise ConfigError(_unknown(str(key), "", known))
        if OmegaConf.is_missing(config, str(key)):
            raise ConfigError(f"{key}=???: expected one of {', '.join(options(str(key)))}")
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from None
    expect(config.seed >= 0, "seed", config.seed, "at least 0")
    expect(config.num_rounds >= 1, "num_rounds", config.num_rounds, "at least 1")
    expect(config.num_clients >= 1, "num_clients", config.num_clients, "at least 1")
    nonmembers = config.candidates.nonmembers
    expect(nonmembers >= 10, "candidates.nonmembers", nonmembers, "at least 10")
    for key, node in _plugins(config):
        _check_plugin(key, node)


def _plugins(node: Any, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Yield every node with a ``_target_``, with its path, outer ones first."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield path, node
        for key in map(str, node):
            if OmegaConf.is_missing(node, key):
                continue
            yield from _plugins(node[key], f"{path}.{key}" if path else key)


def _check_plugin(path: str, node: Any) -> None:
    """Check a plug-in's keys and the types of its values against its constructor."""
    if not isinstance(node, DictConfig) or not isinstance(node.get("_target_"), str):
        raise ConfigError(f"{path}={node}: expected a plug-in, a mapping with the key _target_")
    schema, open_ended = _schema(path, node._target_)
    names = list(schema.__dataclass_fields__)
    keys = [k for k in map(str, node) if not k.startswith("_") and k not in _GROUPS]
    given = {k: "???" if OmegaConf.is_missing(node, k) else node[k] for k in keys}
    for key, value in given.items():
        if key not in names:
            if open_ended:
                continue
            raise ConfigError(_unknown(key, path, names))
        if value == "???":
            raise ConfigError(f"{path}.{key}=???: expected a value")
        if key in _BOUNDS and isinstance(value, int | float):
            allowed, text = _BOUNDS[key]
            expect(allowed(value), f"{path}.{key}", value, text)
    try:
        OmegaConf.merge(OmegaConf.structured(schema), {k: given[k] for k in names if k in given})
    except OmegaConfBaseException as error:
        key = str(error.full_key or error.key or "")
        raise ConfigError(f"{path}.{key}={given.get(key)}: expected {_wanted(error)}") from None
    missing = [
        n for n, f in schema.__dataclass_fields__.items() if f.default == MISSING and n not in given
    ]
    if missing and not node.get("_partial_", False):
        raise ConfigError(f"{path}.{missing[0]}=???: expected a value")


# Nested groups that live inside another group's node.
_GROUPS = ("defenses", "attackers")


@lru_cache(maxsize=256)
def _schema(path: str, target: str) -> tuple[Any, bool]:
    """Return the constructor of a target as a dataclass, and whether it takes any keyword."""
    try:
        made = _locate(target)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{path}._target_={target}: expected to be importable ({reason})"
        ) from None
    hints = get_type_hints(made.__init__ if inspect.isclass(made) else made)
    fields: list[tuple[str, Any, Any]] = []
    open_ended = False
    for name, parameter in inspect.signature(made).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            open_ended = True
            continue
        default = parameter.default
        if default is parameter.empty or default is NO_DEFAULT:
            default = field(default=MISSING)
        elif not isinstance(default, (*_PLAIN, NoneType)):
            default = field(default=None)
        hint = _plain(hints.get(name, Any))
        if not isinstance(default, (*_PLAIN, NoneType)) and default.default is None:
            hint = Any
        fields.append((name, hint, default))
    return make_dataclass(made.__name__, fields, kw_only=True), open_ended


def _locate(target: str) -> Any:
    """Import what a ``_target_`` names; Hydra's own look-up also logs what it cannot find."""
    module, _, name = target.rpartition(".")
    if not module:
        raise ImportError("a name with its module is needed, e.g. package.module.Class")
    return getattr(importlib.import_module(module), name)


def _plain(hint: Any) -> Any:
    """Return the annotation if OmegaConf can check it, else ``Any``."""
    if hint in _PLAIN:
        return hint
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType) and all(a in (*_PLAIN, NoneType) for a in inner):
        return hint
    if origin is list and inner and inner[0] in _PLAIN:
        return hint
    return Any


def _explain(error: Exception, overrides: Sequence[str], config_dirs: Sequence[Path]) -> str:
    """Return one line that says what was wrong with which override."""
    text = str(error)
    if match := re.search(r"Could not (?:find|load) '([^']+)/([^'/]+)'", text):
        group, option = match.groups()
        allowed = [*options(group, config_dirs), *(["all"] if group == "attack" else [])]
        hint = difflib.get_close_matches(option, allowed, 1)
        said = f" (did you mean {hint[0]}?)" if hint else ""
        return f"{group}={option}: expected one of {', '.join(allowed) or 'none'}{said}"
    if "Error parsing override" in text or "mismatched input" in text or "no viable" in text:
        culprit = next((o for o in overrides if not _parses(o)), " ".join(overrides))
        return f"{culprit}: expected key=value in Hydra's override syntax"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        key = str(cause.full_key)
        value = next(
            (o.split("=", 1)[1] for o in overrides if o.lstrip("+").startswith(f"{key}=")), ""
        )
        if "not in" in str(cause):
            parent, _, leaf = key.rpartition(".")
            chosen = [o for o in overrides if o.partition("=")[0] in groups(config_dirs)]
            node = OmegaConf.select(compose(chosen, config_dirs), parent) if parent else Config()
            known = list(node if isinstance(node, DictConfig) else Config.__dataclass_fields__)
            return _unknown(leaf, parent, [str(k) for k in known if not str(k).startswith("_")])
        return f"{key}={value}: expected {_wanted(cause)}"
    if "Config group override must be" in text:
        culprit = next((o for o in overrides if o.endswith(("=null", "=", "=None"))), text)
        return f"{culprit}: expected an option of the group, or a list of them"
    return " ".join(text.split())


def _parses(override: str) -> bool:
    try:
        OverridesParser.create().parse_overrides([override])
    except HydraException:
        return False
    return True


def _unknown(key: str, parent: str, known: Sequence[str]) -> str:
    path = f"{parent}.{key}" if parent else key
    hint = difflib.get_close_matches(key, known, 1, cutoff=0.7)
    said = f"did you mean {hint[0]}? " if hint else ""
    return f"{path}: unknown key; {said}expected one of {', '.join(known) or 'none'}"


def _wanted(error: Exception) -> str:
    text = str(error).splitlines()[0]
    if match := re.search(r"could not be converted to (\w+)", text):
        return _TYPES.get(match.group(1), match.group(1))
    if "not Optional" in text or "is not a supported primitive" in text:
        return "a value, not null" if "Optional" in text else "a plain value"
    if match := re.search(r"not a subclass of|is incompatible with type hint '([^']+)'", text):
        return f"a value of type {match.group(1)}"
    return f"a plain value ({text})"
