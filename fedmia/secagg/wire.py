"""The protocol's record in a Flower message: typed fields, checked when they are read."""

import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fedmia.arrays import to_params
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.protocol import fingerprint

KEYS, SHARES, CONSISTENCY, UNMASK = (
    f"secagg_{stage}" for stage in ("keys", "shares", "consistency", "unmask")
)
"""Actions of the query messages, in the order of the protocol; training comes third."""

DECRYPT = "homomorphic_decrypt"
"""The action of the message that asks a client to decrypt a sum."""

RECORD = "secagg"
"""The name of the protocol's record in a message, and of a client's secrets in its state."""

T = TypeVar("T", int, bytes, str)


class Told:
    """What a message says of the protocol.

    Raises
    ------
    ProtocolError
        When a field is read that is missing or of another type.
    """

    def __init__(self, message: Message) -> None:
        record = message.content.get(RECORD)
        if not isinstance(record, ConfigRecord):
            raise ProtocolError("a message without the record of the protocol")
        self._record = record

    def one(self, name: str, kind: type[T]) -> T:
        """Return a single value."""
        value = self._record.get(name)
        if not isinstance(value, kind):
            raise ProtocolError(f"{name}: expected {kind.__name__}, got {type(value).__name__}")
        return value

    def many(self, name: str, kind: type[T]) -> list[T]:
        """Return a list of values."""
        values = self._record.get(name)
        if not isinstance(values, list) or not all(isinstance(v, kind) for v in values):
            raise ProtocolError(f"{name}: expected a list of {kind.__name__}")
        return cast(list[T], values)

    def table(self, names: str, values: str) -> dict[int, bytes]:
        """Return two lists of one length as a mapping from node to bytes."""
        keys, blobs = self.many(names, int), self.many(values, bytes)
        if len(keys) != len(blobs) or len(set(keys)) < len(keys):
            raise ProtocolError(f"{names} and {values}: expected as many, each node once")
        return dict(zip(keys, blobs, strict=True))


def question(message: Message) -> bytes:
    """Return the SHA-256 of all that a message asks, but for the protocol's own record.

    Masks are derived from it: a server that sends one client another model than the others, or
    other settings (a learning rate of zero), gets a sum in which the masks do not cancel.
    """
    digest = hashlib.sha256(repr(message.metadata.message_type).encode())
    for name, record in sorted(message.content.items()):
        if name == RECORD:
            continue
        if isinstance(record, ArrayRecord):
            digest.update(repr(name).encode() + fingerprint(to_params(record)))
        else:
            digest.update(repr((name, sorted(record.items()))).encode())
    return digest.digest()


def told(**fields: Any) -> ConfigRecord:
    """Return the record with these fields."""
    return ConfigRecord(fields)


def answer(message: Message, **fields: Any) -> Message:
    """Return the reply to a message that says this and nothing else."""
    return Message(RecordDict({RECORD: told(**fields)}), reply_to=message)


def table(names: str, values: str, content: Mapping[int, bytes]) -> dict[str, Any]:
    """Return the two fields that :meth:`Told.table` reads."""
    return {names: [*content], values: [*content.values()]}
