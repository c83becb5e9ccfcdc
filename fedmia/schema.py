"""Check a JSON value against its type annotations, and name the field that does not follow them.

Annotations are ``TypedDict`` classes over ``str``, ``int``, ``float``, ``bool``, ``Any``,
``list[...]``, ``dict[str, ...]``, ``Literal``, ``X | None`` and ``Annotated[X, Rule(...)]``. The
classes of a union are told apart by the ``Literal`` of their ``status`` field.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)


class MismatchError(ValueError):
    """A field does not follow its annotation: ``path=value: expected what is allowed``."""


@dataclass(frozen=True)
class Rule:
    """What a field must satisfy beyond its type."""

    allowed: str
    holds: Callable[[Any], bool]


Share = Annotated[float, Rule("in [0, 1]", lambda v: 0 <= v <= 1)]
Signed = Annotated[float, Rule("in [-1, 1]", lambda v: -1 <= v <= 1)]
Count = Annotated[int, Rule(">= 0", lambda v: v >= 0)]
Seconds = Annotated[float, Rule(">= 0", lambda v: v >= 0)]
Interval = Annotated[list[Share], Rule("[low, high]", lambda v: len(v) == 2 and v[0] <= v[1])]


def check(value: Any, annotation: Any, where: str = "") -> None:
    """Raise ``MismatchError`` unless ``value``, found at path ``where``, follows ``annotation``.

    Every number must be finite; unknown fields of a ``TypedDict`` are let through.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if is_typeddict(annotation):
        _check_fields(value, annotation, where)
    elif origin is Annotated:
        check(value, args[0], where)
        for rule in annotation.__metadata__:
            _expect(rule.holds(value), value, where, rule.allowed)
    elif origin is Literal:
        # By type as well: in Python True == 1.
        known = any(type(value) is type(option) and value == option for option in args)
        _expect(known, value, where, " or ".join(json.dumps(a) for a in args))
    elif origin in (Union, UnionType):
        _check_union(value, args, where)
    elif origin is list:
        _expect(isinstance(value, list), value, where, "a list")
        for index, item in enumerate(value):
            check(item, args[0], f"{where}[{index}]")
    elif origin is dict:
        _expect(isinstance(value, dict), value, where, "an object")
        for key, item in value.items():
            _expect(isinstance(key, str), key, f"{where} key", "a string")
            check(item, args[1], _join(where, key))
    else:
        _check_plain(value, annotation, where)


def _check_fields(value: Any, annotation: Any, where: str) -> None:
    _expect(isinstance(value, dict), value, where, "an object")
    for field, (kind, required) in _fields(annotation).items():
        if field in value:
            check(value[field], kind, _join(where, field))
        elif required:
            raise MismatchError(f"{_join(where, field)}: missing")


@cache
def _fields(annotation: Any) -> dict[str, tuple[Any, bool]]:
    """Return what each field must be, and whether it must be there."""
    hints = get_type_hints(annotation, include_extras=True)
    return {
        field: (get_args(hint)[0], False) if get_origin(hint) is NotRequired else (hint, True)
        for field, hint in hints.items()
    }


def _check_union(value: Any, options: tuple[Any, ...], where: str) -> None:
    if value is None and NoneType in options:
        return
    kinds = [option for option in options if option is not NoneType]
    if len(kinds) == 1:
        check(value, kinds[0], where)
        return
    _expect(isinstance(value, dict), value, where, "an object")
    statuses = {s: kind for kind in kinds for s in get_args(_fields(kind)["status"][0])}
    status = value.get("status")
    known = isinstance(status, str) and status in statuses
    _expect(known, status, _join(where, "status"), " or ".join(map(json.dumps, statuses)))
    check(value, statuses[status], where)


def _check_plain(value: Any, annotation: Any, where: str) -> None:
    number = isinstance(value, float | int) and not isinstance(value, bool)
    if annotation is float:
        _expect(number and math.isfinite(value), value, where, "a finite number")
    elif annotation is int:
        _expect(number and isinstance(value, int), value, where, "an integer")
    elif annotation is str:
        _expect(isinstance(value, str), value, where, "a string")
    elif annotation is bool:
        _expect(isinstance(value, bool), value, where, "true or false")
    elif isinstance(value, list):
        check(value, list[Any], where)
    elif isinstance(value, dict):
        check(value, dict[str, Any], where)
    elif number:
        _check_plain(value, float, where)
    else:
        plain = value is None or isinstance(value, str | bool)
        _expect(plain, value, where, "a plain JSON value")


def _join(where: str, field: str) -> str:
    return f"{where}.{field}" if where else field


def _expect(condition: bool, value: object, where: str, allowed: str) -> None:
    if not condition:
        shown = _shown(value)
        raise MismatchError(f"{where or 'document'}={shown}: expected {allowed}")


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = str(value) if isinstance(value, float | int) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
