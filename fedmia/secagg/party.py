"""What a client of the protocol remembers, what it tells of itself, and who it is."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from fedmia.secagg import keys
from fedmia.secagg.protocol import context_of


@dataclass(frozen=True)
class Secrets:
    """What a client remembers from one stage to the next; all of it private.

    Lists run over the client's neighbours, ascending by node; ``channel_keys`` are those that
    shares are sealed with. ``own_shares`` and ``key_shares`` (of the neighbours' own masks and
    keys) run over those in ``active``, who shared with it.
    """

    session: bytes = b""
    server_round: int = 0
    stage: str = "done"
    mask_key: bytes = b""
    share_key: bytes = b""
    own_seed: bytes = b""
    peers: list[int] = field(default_factory=list)
    peer_mask_keys: list[bytes] = field(default_factory=list)
    channel_keys: list[bytes] = field(default_factory=list)
    peer_identities: list[bytes] = field(default_factory=list)
    active: list[int] = field(default_factory=list)
    own_shares: list[bytes] = field(default_factory=list)
    key_shares: list[bytes] = field(default_factory=list)
    survivors: list[int] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return what there is to remember; all that is left out is empty."""
        return {name: value for name, value in vars(self).items() if value}

    @property
    def context(self) -> bytes:
        """Ties all that is derived to this execution."""
        return context_of(self.session, self.server_round)


@dataclass(frozen=True)
class Peer:
    """What a client is told of one neighbour, itself included as the first of the roll.

    ``identity`` and ``signature`` are empty unless ``malicious_server`` is set.
    """

    KEYS: ClassVar = ("mask_key", "share_key", "identity", "signature")

    node: int
    point: int
    mask_key: bytes
    share_key: bytes
    identity: bytes = b""
    signature: bytes = b""


@dataclass(frozen=True)
class Identity:
    """A client's long-term signing key, and the public keys of everyone who may take part."""

    signing_key: bytes
    known: frozenset[bytes]

    @property
    def public(self) -> bytes:
        """The key that others verify with."""
        return keys.verify_key_of(self.signing_key)
