"""The rows of a comparison: what tells two runs apart, and what each row is compared with."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fedmia.report.wording import option
from fedmia.results import NOT_SCIENCE, Outcome, Result
from fedmia.settings import informed

NOT_COMPARED = ("seed", *NOT_SCIENCE)
"""Keys that do not make two runs different experiments."""


class Line(NamedTuple):
    """What makes a row: who attacks what, and the printed configuration in two parts."""

    attack: str
    vantage: str
    run: tuple[tuple[str, str], ...]  # the federation, its data and its training
    own: tuple[tuple[str, str], ...]  # the attack's own settings


def line_of(run: Result, outcome: Outcome) -> Line:
    """Return the row that ``outcome`` of ``run`` belongs to; the order of keys is none of it.

    A part's own ``seed`` that repeats the run's is no setting either.
    """
    flat = flatten(relevant(run["config"], outcome["name"]))
    flat.pop("observer.vantage", None)  # the row names it
    seed = option(run["seed"])
    repeated = [key for key in flat if key.endswith(".seed") and flat[key] == seed]
    for key in repeated:
        del flat[key]
    own = {key: value for key, value in flat.items() if key.split(".")[0] == "attack"}
    rest = {key: value for key, value in flat.items() if key not in own}
    both = tuple(sorted(rest.items())), tuple(sorted(own.items()))
    return Line(outcome["name"], outcome["vantage"], *both)


def settings_of(lines: Iterable[Line]) -> tuple[str, ...]:
    """Return the keys in which runs differ, then those in which one attack differs from itself.

    An attack's setting that only repeats one of the run (a learning rate) is left out.
    """
    every = list(lines)
    shared = differing([dict(run) for run in dict.fromkeys(line.run for line in every)])
    found = dict.fromkeys(shared)
    for attack in dict.fromkeys(line.attack for line in every):
        same = [line for line in every if line.attack == attack]
        configs = [dict(line.run + line.own) for line in same]
        found |= {
            key: None
            for key in differing([dict(own) for own in dict.fromkeys(line.own for line in same)])
            if all(any(c.get(key) != c.get(other) for c in configs) for other in shared)
        }
    return tuple(found)


def ordered(lines: Iterable[Line]) -> list[Line]:
    """Return the lines by run, within it by attack, each in the order of its first appearance."""
    every = list(lines)
    runs = list(dict.fromkeys(line.run for line in every))
    attacks = list(dict.fromkeys(line[:2] for line in every))
    return sorted(every, key=lambda line: (runs.index(line.run), attacks.index(line[:2])))


def firsts_of(lines: Iterable[Line]) -> dict[Line, Line]:
    """Return what each of the ordered lines is compared with; the first of an attack, with itself.

    That is the first line of the attack with the same settings of its own, so that a difference is
    one of the run; for that line, the first of the attack.
    """
    found: dict[Line, Line] = {}
    alike: dict[tuple[object, ...], Line] = {}
    for line in lines:
        start = alike.setdefault(line[:2], line)
        same = alike.setdefault((*line[:2], line.own), line)
        found[line] = start if same == line else same
    return found


def relevant(config: Mapping[str, Any], attack: str) -> dict[str, Any]:
    """Return the part of a configuration that the row of one attack depends on.

    One that knows the defences has the settings of the attack that does not.
    """
    kept = {key: value for key, value in config.items() if key not in NOT_COMPARED}
    attacks = kept.get("attack")
    if isinstance(attacks, Mapping) and "_target_" not in attacks:
        known = {informed(name): settings for name, settings in attacks.items()}
        kept["attack"] = (known | dict(attacks)).get(attack, {})
    return kept


def flatten(config: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Return ``{"train.lr": "0.1"}``: dotted keys, printed values, parts by their class name."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if key == "_target_":
            flat[path or key] = str(value).rpartition(".")[2]
        elif isinstance(value, Mapping):
            flat |= flatten(value, f"{path}.{key}" if path else key)
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            dotted = f"{path}.{key}" if path else key
            flat[dotted] = option(value)
            flat |= flatten({str(i): v for i, v in enumerate(value)}, dotted)
        else:
            flat[f"{path}.{key}" if path else key] = option(value)
    return flat


def differing(configs: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Return the keys that tell ``configs`` apart, in the order they appear.

    A key that only some of them have, always with one value, belongs to a part that is named by
    another key already; it is shown only where the rest does not tell the configurations apart.
    """
    keys = list(dict.fromkeys(key for config in configs for key in config))
    changing = [key for key in keys if len({c[key] for c in configs if key in c}) > 1]
    if len({tuple(c.get(key) for key in changing) for c in configs}) < len(configs):
        changing = [key for key in keys if len({c.get(key) for c in configs}) > 1]
    return tuple(changing)
