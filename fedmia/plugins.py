"""A plug-in's node in the configuration, held against the constructor that it names."""

import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field, make_dataclass
from functools import lru_cache
from types import GenericAlias, NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedmia.errors import ConfigError, expect
from fedmia.explain import unknown, wanted

NESTED = ("defenses", "attackers", "canaries")  # groups that live inside another group's node

_PLAIN = (int, float, bool, str)

# Flower's strategies check none of these, and no plug-in its seed.
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
    "seed": (lambda v: v >= 0, "at least 0"),
}


def plugins(node: Any, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Yield every node with a ``_target_``, with its path, outer ones first."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield path, node
        for key in map(str, node):
            if OmegaConf.is_missing(node, key):
                continue
            yield from plugins(node[key], f"{path}.{key}" if path else key)


def check_plugin(path: str, node: Any) -> None:
    """Check a plug-in's keys and the types of its values against its constructor."""
    if not isinstance(node, DictConfig) or not isinstance(node.get("_target_"), str):
        raise ConfigError(f"{path}={node}: expected a plug-in, a mapping with the key _target_")
    schema, required, open_ended = _schema(path, node._target_)
    names = list(schema.__dataclass_fields__)
    keys = [k for k in map(str, node) if not k.startswith("_") and k not in NESTED]
    given = {k: "???" if OmegaConf.is_missing(node, k) else node[k] for k in keys}
    for key, value in given.items():
        if key not in names:
            if open_ended:
                continue
            raise ConfigError(unknown(key, path, names))
        if value == "???":
            raise ConfigError(f"{path}.{key}=???: expected a value")
        if key in _BOUNDS and isinstance(value, int | float):
            allowed, text = _BOUNDS[key]
            expect(allowed(value), f"{path}.{key}", value, text)
    try:
        OmegaConf.merge(OmegaConf.structured(schema), {k: given[k] for k in names if k in given})
    except OmegaConfBaseException as error:
        key = str(error.full_key or error.key or "")
        name, _, element = key.partition("[")
        shown = "null" if given.get(name) is None else given[name]
        what = f"{wanted(error)} in every place" if element else wanted(error)
        raise ConfigError(f"{path}.{name}={shown}: expected {what}") from None
    missing = [name for name in names if name in required and name not in given]
    if missing and not node.get("_partial_", False):
        raise ConfigError(f"{path}.{missing[0]}=???: expected a value")


@lru_cache(maxsize=256)
def _schema(path: str, target: str) -> tuple[Any, frozenset[str], bool]:
    """Return a target's constructor as a dataclass, what it requires, and if it takes any keyword.

    Defaults that are no plain values are left out: only types are checked here.
    """
    try:
        made = _locate(target)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{path}._target_={target}: expected to be importable ({reason})"
        ) from None
    hints = get_type_hints(made.__init__ if inspect.isclass(made) else made)
    fields: list[tuple[str, Any, Any]] = []
    required, open_ended = set(), False
    for name, parameter in inspect.signature(made).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            open_ended = True
            continue
        default = parameter.default
        if default is parameter.empty:
            required.add(name)
        if not isinstance(default, (*_PLAIN, NoneType)):
            default = field(default=MISSING)
        fields.append((name, _plain(hints.get(name, Any)), default))
    return make_dataclass(made.__name__, fields, kw_only=True), frozenset(required), open_ended


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
    if origin in (list, Sequence) and inner and inner[0] in _PLAIN:
        return GenericAlias(list, (inner[0],))
    return Any
