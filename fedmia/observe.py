"""The adversary's vantage: where it stands decides what its transcript contains.

``ObservedGrid`` sits between a strategy and any Flower Grid and changes nothing that passes.
From the train messages and replies of a round it makes one full :class:`Observation`, of which
the vantage keeps what its adversary would have seen.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedmia.arrays import Block, to_params
from fedmia.errors import ConfigError, expect
from fedmia.records import KNOWLEDGE, Capability, Observation, Params, Update, difference


class Vantage(ABC):
    """A place from which an adversary watches the federation."""

    name: ClassVar[str]
    shows: ClassVar[frozenset[Capability]]
    per_client: ClassVar[bool] = False
    """Whether its adversary can ask about one client's data, not only about everyone's."""

    @abstractmethod
    def view(self, observation: Observation) -> Observation | None:
        """Return what is visible of a round; ``None`` if nothing is.

        The model after the last round is asked about as round 0, sent to nobody.
        """


class Server(Vantage):
    """The honest-but-curious server: every model sent, every update as transmitted."""

    name = "server"
    shows = frozenset(Capability) - KNOWLEDGE
    per_client = True

    def view(self, observation: Observation) -> Observation | None:
        """Return everything."""
        return observation


@dataclass(frozen=True)
class Participant(Vantage):
    """One client of the federation: ``w^t`` in the rounds in which it was sent one."""

    node_id: int
    name = "participant"
    shows = frozenset({Capability.GLOBAL_MODEL, Capability.MANY_ROUNDS})

    def view(self, observation: Observation) -> Observation | None:
        """Return the global model where this node received it."""
        if self.node_id not in observation.recipients:
            return None
        return Observation(observation.round, observation.params, (self.node_id,))


class FinalModel(Vantage):
    """Anyone who gets the finished model: ``w^T`` and nothing else."""

    name = "final_model"
    shows = frozenset({Capability.GLOBAL_MODEL})

    def view(self, observation: Observation) -> Observation | None:
        """Return the model after the last round."""
        return observation if observation.round == 0 else None


_VANTAGES: tuple[type[Vantage], ...] = (Server, Participant, FinalModel)


@dataclass(frozen=True)
class Observer:
    """Who watches and what is kept.

    Parameters
    ----------
    vantage
        ``server``, ``participant`` or ``final_model``.
    participant
        Which client is the curious one (its number, from 0), for vantage ``participant``.
    keep_transcript
        Whether the transcript stays in the run directory after the attacks.
    """

    vantage: str = "server"
    participant: int = 0
    keep_transcript: bool = True

    def __post_init__(self) -> None:
        names = [v.name for v in _VANTAGES]
        expect(self.vantage in names, "vantage", self.vantage, f"one of {', '.join(names)}")
        expect(self.participant >= 0, "participant", self.participant, "at least 0")

    @property
    def kind(self) -> type[Vantage]:
        """The vantage's class, known before there are nodes to stand on."""
        return next(v for v in _VANTAGES if v.name == self.vantage)

    def stand(self, nodes: dict[int, int]) -> Vantage:
        """Return the vantage among these nodes (node id → client number).

        Raises
        ------
        ConfigError
            If the curious participant is not among the clients.
        """
        if self.kind is not Participant:
            return self.kind()
        for node_id, client in nodes.items():
            if client == self.participant:
                return Participant(node_id)
        raise ConfigError(
            f"observer.participant={self.participant}: expected in 0..{len(nodes) - 1}"
        )


ABSENT = "DroppedOutError"
"""In the reason of every reply of a client that is away on purpose (``client.dropout``)."""


class DivergedError(ArithmeticError):
    """A client sent a NaN or an infinity; ``node_id`` and ``round`` say which and when."""

    def __init__(self, node_id: int, server_round: int, what: str) -> None:
        super().__init__(f"round {server_round}: {what} is not finite")
        self.node_id, self.round, self.what = node_id, server_round, what


class EveryClientFailedError(RuntimeError):
    """No client of a round answered, so there is nothing to aggregate or to observe."""


@dataclass(frozen=True)
class Fault:
    """A client that answered a round with an error, and its reason."""

    round: int
    node_id: int
    reason: str


class ObservedGrid(Grid):
    """Pass every message on, unchanged, and report each complete training round.

    Parameters
    ----------
    grid
        The grid that carries the messages.
    on_round
        Called with the full observation of each round in which some client answered.

    Raises
    ------
    DivergedError
        When a reply holds a value that is not finite (before ``on_round`` is called).
    EveryClientFailedError
        When no client of a round answered and some failed; a round in which all were away on
        purpose is passed over.
    """

    def __init__(self, grid: Grid, on_round: Callable[[Observation], None]) -> None:
        self._grid = grid
        self._on_round = on_round
        self._pushed: dict[str, Message] = {}
        self._pulled: list[Message] = []
        self._rounds = 0
        self.rounds_seen = 0
        self.faults: list[Fault] = []

    @property
    def run(self) -> Any:
        """Run information."""
        return self._grid.run

    def set_run(self, run: Any) -> None:
        """Set the run of the inner grid."""
        self._grid.set_run(run)

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Create a message with the inner grid."""
        return self._grid.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """Return the node ids of the inner grid."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[Any]:
        """Return the nodes of the inner grid."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages; they make up one round until a reply to one of them was pulled."""
        if self._pulled:
            self._complete()
        messages = list(messages)
        ids = list(self._grid.push_messages(messages))
        self._pushed.update(zip(ids, messages, strict=True))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return replies; with the last one of those pushed, their round is observed.

        A round in which some node never replies is observed when the next one is pushed.
        """
        replies = list(self._grid.pull_messages(message_ids))
        self._pulled += [r for r in replies if r.metadata.reply_to_message_id in self._pushed]
        if self._pulled and len(self._pulled) == len(self._pushed):
            self._complete()
        return replies

    def _complete(self) -> None:
        messages, replies = list(self._pushed.values()), self._pulled
        self._pushed, self._pulled = {}, []
        self._observe(messages, replies)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages, wait for the replies, and observe the round they make up."""
        messages = list(messages)
        replies = list(self._grid.send_and_receive(messages, timeout=timeout))
        self._observe(messages, replies)
        return replies

    def _observe(self, messages: list[Message], replies: list[Message]) -> None:
        sent = {m.metadata.dst_node_id: m for m in messages if _is_train(m)}
        if not sent:
            return
        self._rounds = max(self._rounds + 1, _stated_round(next(iter(sent.values()))))
        decoded: dict[int, Params] = {}  # strategies put one content into many messages
        params: dict[int, Params] = {}
        for node_id, message in sent.items():
            key = id(message.content)
            if key not in decoded:
                decoded[key] = to_params(_arrays(message.content))
            params[node_id] = decoded[key]
        by_id = {m.metadata.message_id: n for n, m in sent.items()}
        room = Block.for_copies(next(iter(params.values())), len(replies))
        updates, earlier = [], len(self.faults)
        for reply in replies:
            node_id = by_id.get(reply.metadata.reply_to_message_id, reply.metadata.src_node_id)
            if reply.has_error():
                reason = reply.error.reason or f"error {reply.error.code}"
                self.faults.append(Fault(self._rounds, node_id, reason))
            elif node_id in sent:
                updates.append(self._update(node_id, reply.content, params[node_id], room))
        if not updates:
            reasons = [fault.reason for fault in self.faults[earlier:]]
            if reasons and all(ABSENT in reason for reason in reasons):
                return  # nobody was there: the model stays as it is
            first = next((r for r in reasons if ABSENT not in r), "no replies")
            raise EveryClientFailedError(
                f"round {self._rounds}: none of {len(sent)} clients answered; first reason: {first}"
            )
        updates.sort(key=lambda u: u.node_id)
        first_sent = next(iter(params.values()))
        self.rounds_seen += 1
        self._on_round(Observation(self._rounds, first_sent, tuple(sent), tuple(updates)))

    def _update(self, node_id: int, content: RecordDict, sent: Params, room: Block) -> Update:
        metrics = next((r for r in content.values() if isinstance(r, MetricRecord)), MetricRecord())
        loss = metrics.get("train-loss", 0.0)
        if isinstance(loss, float) and not np.isfinite(loss):
            raise DivergedError(node_id, self._rounds, f"the loss ({loss})")
        delta = difference(to_params(_arrays(content)), sent, room)
        for name, change in delta.items():
            if not _finite(change):
                raise DivergedError(node_id, self._rounds, f"the update of '{name}'")
        num_examples = metrics.get("num-examples", 0)
        return Update(node_id, int(num_examples) if isinstance(num_examples, int) else 0, delta)


def _finite(array: NDArray[Any]) -> bool:
    """Whether all values are finite; a finite sum, in one pass, says so without a second."""
    with np.errstate(over="ignore", invalid="ignore"):
        return array.dtype.kind != "f" or bool(np.isfinite(array.sum()) or np.isfinite(array).all())


def _is_train(message: Message) -> bool:
    return message.metadata.message_type.split(".")[0] == "train" and message.has_content()


def _arrays(content: RecordDict) -> ArrayRecord:
    return next((r for r in content.values() if isinstance(r, ArrayRecord)), ArrayRecord())


def _stated_round(message: Message) -> int:
    for record in message.content.values():
        if isinstance(record, ConfigRecord) and isinstance(
            stated := record.get("server-round"), int
        ):
            return stated
    return 0
