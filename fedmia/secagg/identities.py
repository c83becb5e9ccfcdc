"""Who may take part: long-term signing keys, which somebody other than the server vouches for."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fedmia.errors import expect
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.keys import verify_key_of
from fedmia.secagg.party import Identity

OWN = "secagg-identity"
"""The key of a node's configuration that names the file with its own signing key."""


@dataclass(frozen=True)
class Identities:
    """The registry of signing keys.

    Parameters
    ----------
    folder
        Holds a file ``*.pub`` for each client, its Ed25519 verify key as 64 hexadecimal digits;
        the client's own signing key is in the file that its node's configuration names as
        ``secagg-identity``. ``None`` derives all keys from ``seed``, which only a simulation may:
        whoever knows the seed can sign for anybody.
    clients
        How many there are, where keys are derived.
    seed
        What keys are derived from.
    """

    folder: str | None = None
    clients: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        there = self.folder is None or Path(self.folder).is_dir()
        expect(there, "folder", self.folder, "a folder with a *.pub file for each client")

    def of(self, node_config: Mapping[str, Any]) -> Identity:
        """Return the identity of the client with this node configuration.

        Raises
        ------
        ProtocolError
            If a key file is missing or is not 64 hexadecimal digits.
        """
        if self.folder is None:
            signing = _derived(self.seed, int(node_config["partition-id"]))
            return Identity(signing, _everyone(self.seed, self.clients))
        if OWN not in node_config:
            raise ProtocolError(
                f"node config: expected {OWN}, a file with this client's signing key"
            )
        known = frozenset(_read(file) for file in sorted(Path(self.folder).glob("*.pub")))
        return Identity(_read(Path(str(node_config[OWN]))), known)


def _derived(seed: int, client: int) -> bytes:
    return hashlib.sha256(f"fedmia simulated identity {seed} {client}".encode()).digest()


@lru_cache(maxsize=8)
def _everyone(seed: int, clients: int) -> frozenset[bytes]:
    return frozenset(verify_key_of(_derived(seed, client)) for client in range(clients))


def _read(file: Path) -> bytes:
    try:
        key = bytes.fromhex(file.read_text().strip())
    except (OSError, ValueError) as error:
        raise ProtocolError(f"{file}: expected a key in hexadecimal ({error})") from None
    if len(key) != 32:
        raise ProtocolError(f"{file}: {len(key)} bytes, expected a key of 32")
    return key
