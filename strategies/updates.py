"""The updates of a round as one matrix, read from the clients' answers; what is none is flagged."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flwr.app import Message, MetricRecord
from numpy.typing import NDArray

from fedmia.answers import metrics_of, params_like, small, too_far
from fedmia.records import Params
from fedmia.suspicion import Flag

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Updates:
    """What n clients answered in one round, ascending in ``nodes``.

    Parameters
    ----------
    server_round
        The round.
    nodes
        The n node ids.
    matrix
        ``w_k − w`` of the floating arrays, one row a client, (n, d) float32.
    examples
        How many examples each client says it has trained on, (n,).
    model
        The same arrays of ``w``, (d,) float32.
    losses
        The training losses that clients state, (n,); NaN where one states none.
    """

    server_round: int
    nodes: tuple[int, ...]
    matrix: Float32
    examples: NDArray[np.int64]
    model: Float32
    losses: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.nodes)

    def only(self, rows: Sequence[int] | NDArray[Any]) -> "Updates":
        """Return the updates of these rows, positions or a mask."""
        chosen = np.arange(len(self))[np.asarray(rows)]
        return replace(
            self,
            nodes=tuple(self.nodes[i] for i in chosen),
            matrix=self.matrix[chosen],
            examples=self.examples[chosen],
            losses=self.losses[chosen],
        )

    def norms(self) -> NDArray[np.float64]:
        """Return the L2 norms of the updates, (n,)."""
        squares = np.einsum("ij,ij->i", self.matrix, self.matrix, dtype=np.float64)
        return np.asarray(np.sqrt(squares))


class Layout:
    """Where the floating arrays of a model are in one vector of d coordinates."""

    def __init__(self, model: Params) -> None:
        self.model = model
        self._places: dict[str, slice] = {}
        start = 0
        for name, value in model.items():
            if np.issubdtype(value.dtype, np.floating):
                self._places[name] = slice(start, start + value.size)
                start += value.size
        self.size = start

    def places(self) -> Iterator[tuple[str, slice]]:
        """Yield each floating array's name and its place."""
        yield from self._places.items()

    def flat(self) -> Float32:
        """Return the model's floating arrays, (d,)."""
        found = np.empty(self.size, np.float32)
        for name, place in self._places.items():
            found[place] = self.model[name].reshape(-1)
        return found

    def write(self, after: Params, row: Float32) -> None:
        """Write ``after − model`` into a row, (d,)."""
        for name, place in self._places.items():
            before = self.model[name]
            change: NDArray[Any] = row[place].reshape(before.shape)
            np.subtract(after[name], before, out=change, casting="same_kind")

    def moved(self, change: NDArray[np.floating[Any]]) -> dict[str, NDArray[Any]]:
        """Return the model with its floating arrays moved by ``change``, (d,)."""
        found: dict[str, NDArray[Any]] = dict(self.model)
        for name, place in self._places.items():
            before = self.model[name]
            found[name] = (before + change[place].reshape(before.shape)).astype(before.dtype)
        return found


def read(
    layout: Layout, server_round: int, replies: Iterable[Message]
) -> tuple[Updates, list[Flag]]:
    """Return the updates among the replies, and a flag for each client that sent none that counts.

    An update is none if the arrays are not those that were sent, or if it is not finite or has a
    coordinate beyond :data:`fedmia.answers.LARGEST`. Errors are passed over: a client that is away
    is not suspicious.
    """
    answers = [reply for reply in replies if not reply.has_error()]
    answers.sort(key=lambda reply: reply.metadata.src_node_id)
    matrix = np.empty((len(answers), layout.size), np.float32)
    kept: list[int] = []
    flags: list[Flag] = []
    for place, reply in enumerate(answers):
        node, row = reply.metadata.src_node_id, matrix[len(kept)]
        try:
            with np.errstate(all="ignore"):
                layout.write(params_like(layout.model, reply.content), row)
        except ValueError as error:
            flags.append(Flag(server_round, node, f"no update: {error}"))
            continue
        if small(row):
            kept.append(place)
        else:
            flags.append(Flag(server_round, node, f"the update is {too_far(row)}"))
    senders = [answers[place] for place in kept]
    told = [metrics_of(reply.content) for reply in senders]
    updates = Updates(
        server_round,
        tuple(reply.metadata.src_node_id for reply in senders),
        matrix[: len(kept)],
        np.array([_count(m) for m in told], np.int64),
        layout.flat(),
        np.array([_loss(m) for m in told], np.float64),
    )
    return updates, flags


def _count(metrics: MetricRecord) -> int:
    count = metrics.get("num-examples", 1)
    return count if isinstance(count, int) and 0 < count < 2**63 else 1


def _loss(metrics: MetricRecord) -> float:
    loss = metrics.get("train-loss", np.nan)
    return float(loss) if isinstance(loss, int | float) else np.nan
