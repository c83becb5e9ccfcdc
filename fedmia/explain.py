"""What went wrong with a configuration, in one line: the key, the value, what is allowed."""

import difflib
import re
from collections.abc import Callable, Sequence

from omegaconf.errors import OmegaConfBaseException

_TYPES = {"Integer": "an integer", "Float": "a number", "Boolean": "true or false"}


def explain(
    error: Exception,
    overrides: Sequence[str],
    options: Callable[[str], list[str]],
    keys: Callable[[str], list[str]],
    parses: Callable[[str], bool],
) -> str:
    """Return one line that says what was wrong with which override.

    Parameters
    ----------
    error
        What composing the configuration raised.
    overrides
        What the user asked for.
    options
        Gives the options of a configuration group.
    keys
        Gives the keys below a path; those of the whole configuration for an empty one.
    parses
        Says whether a single override can be parsed.
    """
    text = str(error)
    if match := re.search(r"Could not (?:find|load) '([^']+)/([^'/]*)'", text):
        group, option = match.groups()
        allowed = options(group)
        hint = difflib.get_close_matches(option, allowed, 1)
        said = f" (did you mean {hint[0]}?)" if hint else ""
        return f"{group}={option}: expected one of {', '.join(allowed) or 'none'}{said}"
    if "Error parsing override" in text or "mismatched input" in text or "iableAlt" in text or "no viable" in text:
        culprit = next((o for o in overrides if not parses(o)), " ".join(overrides))
        return f"{culprit}: expected key=value in Hydra's override syntax"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        key = str(cause.full_key)
        value = next(
            (o.split("=", 1)[1] for o in overrides if o.lstrip("+").startswith(f"{key}=")), ""
        )
        if "not in" in str(cause):
            parent, _, leaf = key.rpartition(".")
            return unknown(leaf, parent, [k for k in keys(parent) if not k.startswith("_")])
        return f"{key}={value}: expected {wanted(cause)}"
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{match.group(1)}: expected one value, or -m to run each of them"
    if "Config group override must be" in text:
        culprit = next((o for o in overrides if o.endswith(("=null", "=", "=None"))), text)
        return f"{culprit}: expected an option of the group, or a list of them"
    return " ".join(text.split())


def unknown(key: str, parent: str, known: Sequence[str]) -> str:
    """Return the line about a key that is none of the known ones below ``parent``."""
    path = f"{parent}.{key}" if parent else key
    hint = difflib.get_close_matches(key, known, 1, cutoff=0.7)
    said = f"did you mean {hint[0]}? " if hint else ""
    return f"{path}: unknown key; {said}expected one of {', '.join(known) or 'none'}"


def wanted(error: Exception) -> str:
    """Return what OmegaConf would have taken instead of the value that it refused."""
    text = str(error).splitlines()[0]
    if match := re.search(r"could not be converted to (\w+)", text):
        return _TYPES.get(match.group(1), match.group(1))
    if "not Optional" in text or "Incompatible value 'None'" in text:
        return "a value, not null"
    if "Invalid value assigned" in text and "ListConfig" in text:
        return "a list"
    if match := re.search(r"not a subclass of|is incompatible with type hint '([^']+)'", text):
        return f"a value of type {match.group(1)}"
    return f"a plain value ({text})"
