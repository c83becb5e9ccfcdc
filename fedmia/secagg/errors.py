"""The one exception of a protocol that was not followed."""


class ProtocolError(RuntimeError):
    """A message of the other side cannot be used: forged, malformed or too few of its kind.

    Its text is one line that names what failed; it never holds a secret.
    """
