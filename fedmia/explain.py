"""What went wrong with a configuration, in one line: the key, the value, what is allowed."""

import difflib
import re
from collections.abc import Callable, Sequence

from omegaconf.errors import OmegaConfBaseException

_TYPES = {"Integer": "an integer", "Float": "a number", "Boolean": "true or false"}
_UNNAMED = re.compile(r"=(null|none|true|false|[-+.\de_]*)$", re.IGNORECASE)


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
    if culprit := next((o for o in overrides if not parses(o)), None):
        return f"{culprit}: expected key=value in Hydra's override syntax"
    if match := re.search(r"Could not (?:find|load) '([^']+)/([^'/]*)'", text):
        group, option = match.groups()
        allowed = options(group)
        hint = difflib.get_close_matches(option, allowed, 1)
        said = f" (did you mean {hint[0]}?)" if hint else ""
        return f"{group}={option}: expected one of {', '.join(allowed) or 'none'}{said}"
    if match := re.search(r"Could not override '([^'@]+/[^'@]+)'", text):
        group = match.group(1)
        culprit = next((o for o in overrides if _key(o) == group), group)
        return f"{culprit}: expected an option, and there is none in the group {group}"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        key = str(cause.full_key)
        if "not in" in str(cause):
            parent, _, leaf = key.rpartition(".")
            return unknown(leaf, parent, [k for k in keys(parent) if not k.startswith("_")])
        merged = text.partition("Error merging override ")[2]
        value = next((o.partition("=")[2] for o in (merged, *overrides) if _key(o) == key), "")
        return f"{key}={value}: expected {wanted(cause)}"
    if match := re.search(r"Multiple values for (\S+)\.", text):
        return f"+{match.group(1)}: expected without the +, it has a value already"
    if match := re.search(r"Could not delete from config\. '(.*)' does not exist", text):
        return f"~{match.group(1)}: expected a key that is there to be deleted"
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{match.group(1)}: expected one value, or -m to run each of them"
    if "Config group override must be" in text:
        culprit = next((o for o in overrides if options(_key(o)) and _UNNAMED.search(o)), text)
        return f"{culprit}: expected one of {', '.join(options(_key(culprit)))}"
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
    if "not a valid bool" in text:
        return _TYPES["Boolean"]
    if "to string" in text:
        return "a text"
    if "Invalid value assigned" in text and "ListConfig" in text:
        return "a list"
    if "not a subclass of" in text:
        return "its keys, one by one"
    if match := re.search(r"is incompatible with type hint '([^']+)'", text):
        return f"a value of type {match.group(1)}"
    return f"a plain value ({text})"


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")
