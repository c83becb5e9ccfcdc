"""What an adversary sees of a federation, round by round, and which powers that gives it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Params = Mapping[str, NDArray[Any]]
"""Named arrays of a model, in the order of its ``state_dict``."""


class Empty(Protocol):
    """Makes room for an array, as ``numpy.empty`` does."""

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array of any content."""


def difference(after: Params, before: Params, empty: Empty = np.empty) -> dict[str, NDArray[Any]]:
    """Return ``after − before`` by name; a boolean that flips changes by 1 or −1 (int8)."""
    changes = {}
    for name, value in after.items():
        both = np.result_type(value, before[name])  # an average of booleans is no boolean
        dtype = np.dtype(np.int8) if both == np.bool_ else both
        shape = np.broadcast_shapes(value.shape, before[name].shape)
        changes[name] = empty(shape, dtype)
        np.subtract(value, before[name], out=changes[name], dtype=dtype)
    return changes


class Capability(StrEnum):
    """Something an attack may need: a vantage shows the first five, the rest is knowledge."""

    GLOBAL_MODEL = "the global model"
    OUTPUTS = "outputs of the global model"
    MANY_ROUNDS = "several rounds"
    CLIENT_UPDATES = "client updates"
    MANY_CLIENTS = "updates of several clients"
    AUXILIARY = "auxiliary records"
    RECIPE = "the training recipe"
    SHADOWS = "shadow training"
    KNOWN_MEMBERS = "known members"


KNOWLEDGE = frozenset(
    {Capability.AUXILIARY, Capability.RECIPE, Capability.SHADOWS, Capability.KNOWN_MEMBERS}
)
"""What no vantage shows: it is the adversary's own."""


def implied(shows: frozenset[Capability]) -> frozenset[Capability]:
    """Return these capabilities with what follows: who has a model has its outputs."""
    return shows | {Capability.OUTPUTS} if Capability.GLOBAL_MODEL in shows else shows


@dataclass(frozen=True)
class Update:
    """``Δ_k^t = w_k^t − w^t`` as it left the client, after every mod.

    ``node_id`` is opaque: which shard of the data a node holds is ground truth and kept apart.
    """

    node_id: int
    num_examples: int
    delta: Params


MASKED = "masked"
"""The key under which a reply carries masked words in place of a model."""

WORDS = "words"
"""The name of the one array in there: 1-d, uint32 or uint64."""

PAYLOAD = "payload-bytes"
"""The metric by which a client states how many bytes its answer takes, if less than the model."""


@dataclass(frozen=True)
class MaskedInput:
    """What a client sent under secure aggregation: ``words`` (length,), uint32 or uint64."""

    node_id: int
    words: NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Observation:
    """One round, as one adversary saw it.

    ``params`` is ``w^t``; ``recipients`` are the nodes it was sent to, whether or not they
    answered; ``updates`` is empty where the vantage shows none; ``aggregate`` is
    ``w^{t+1} − w^t`` where both models were seen, else ``None``; ``masked`` are the words that
    came in place of updates.
    """

    round: int
    params: Params
    recipients: tuple[int, ...]
    updates: tuple[Update, ...] = ()
    aggregate: Params | None = None
    masked: tuple[MaskedInput, ...] = ()


@dataclass(frozen=True)
class Examples:
    """Labelled records: features ``x`` of shape (n, *input_shape), labels ``y`` of shape (n,)."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Any) -> "Examples":
        return Examples(self.x[index], self.y[index])
