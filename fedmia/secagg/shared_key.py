"""The secret key that clients share, and how each of them comes by it without the server."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedmia.secagg import ckks
from fedmia.secagg.errors import ProtocolError

OWN = "homomorphic-key"
"""The key of a node's configuration that names the file with the clients' secret key."""


@dataclass(frozen=True)
class SharedKey:
    """Where clients have their secret key from.

    Parameters
    ----------
    provisioned
        Whether it is in the file that a node's configuration names as ``homomorphic-key``, which
        somebody other than the server made (:func:`fedmia.secagg.ckks.new_key`) and gave to all
        clients. If not, a fresh key goes with this object to the clients of a simulation, and so
        through the process of the server.

    Raises
    ------
    ConfigError
        If the extra ``he`` is not installed.
    """

    provisioned: bool = False
    _made: bytes = field(default=b"", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ckks.require()
        if not self.provisioned:
            object.__setattr__(self, "_made", ckks.new_key())

    def of(self, node_config: Mapping[str, Any]) -> bytes:
        """Return the secret key of the client with this node configuration.

        Raises
        ------
        ProtocolError
            If there is no file, or none that can be read.
        """
        if not self.provisioned:
            return self._made
        if OWN not in node_config:
            raise ProtocolError(f"node config: expected {OWN}, a file with the clients' secret key")
        file = Path(str(node_config[OWN]))
        try:
            return file.read_bytes()
        except OSError as error:
            raise ProtocolError(f"{file}: expected a secret key ({error.strerror})") from None


def name_of(key: bytes) -> bytes:
    """Return 16 bytes by which clients with the same key are known."""
    return hashlib.sha256(b"fedmia shared key|" + key).digest()[:16]
