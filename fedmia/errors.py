"""The one exception of a user's making, and the one shape its message has."""


class ConfigError(ValueError):
    """A value given by the user cannot be used; raised before any training starts.

    Its text is one line: the key, the value, what is allowed.
    """


def expect(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise ``ConfigError("key=value: expected allowed")`` unless ``condition`` holds.

    ``key`` is relative to the object that checks; the configuration layer puts the path before it.
    """
    if not condition:
        raise ConfigError(f"{key}={value}: expected {allowed}")
