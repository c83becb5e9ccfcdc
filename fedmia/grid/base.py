"""What every simulated pool shares: nodes with identities, clients that answer messages.

All use of Flower's private modules stands in this package.
"""

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedmia.errors import expect
from fedmia.seeding import generator

T = TypeVar("T")
ClientAppFactory = Callable[[], ClientApp]
"""Builds the one ClientApp that all clients of a process share; must survive pickling."""


@dataclass(frozen=True, kw_only=True)
class Pool(ABC):
    """Where the clients of a federation run.

    Parameters
    ----------
    timeout_s
        A client that takes longer to answer one message is answered for with an error; ``None``
        waits for ever.
    """

    timeout_s: float | None = None

    def __post_init__(self) -> None:
        limit = self.timeout_s
        expect(limit is None or limit > 0, "timeout_s", limit, "null or more than 0")

    @abstractmethod
    def run(
        self,
        client_app: ClientAppFactory,
        num_clients: int,
        seed: int,
        main: Callable[[Grid], T],
    ) -> T:
        """Start ``num_clients`` clients and return what ``main`` makes of their grid."""


@dataclass
class Reply:
    """How one message ended: its answer, and the client's state where the client changed it."""

    message: Message
    state: bytes | None = None


class Clients:
    """The clients of one process: their app, and a Context for each that lives across rounds."""

    def __init__(self, client_app: ClientAppFactory, num_clients: int) -> None:
        self._app = client_app()
        self._num_clients = num_clients
        self._contexts: dict[int, Context] = {}

    def answer(
        self,
        message: Message,
        partition_id: int,
        state: bytes | None = None,
        fail_fast: bool = False,
    ) -> Reply:
        """Run one message; what the client raises becomes an error reply, unless ``fail_fast``.

        ``state`` replaces what this process remembers of the client.
        """
        context = self._context(message, partition_id, state)
        before = pickle.dumps(context.state) if context.state else None
        try:
            answer = self._app(own_copy(message), context)
        except Exception as error:
            where = f"client {partition_id}, round {round_of(message)}"
            if fail_fast:
                error.add_note(where)
                raise
            answer = refuse(message, f"{where}: {type(error).__name__}: {error}")
        after = pickle.dumps(context.state) if context.state else None
        return Reply(answer, after if after != before else None)

    def _context(self, message: Message, partition_id: int, state: bytes | None) -> Context:
        node_id = message.metadata.dst_node_id
        if state is not None or node_id not in self._contexts:
            self._contexts[node_id] = Context(
                run_id=message.metadata.run_id,
                node_id=node_id,
                node_config={"partition-id": partition_id, "num-partitions": self._num_clients},
                state=pickle.loads(state) if state is not None else RecordDict(),
                run_config={},
            )
        return self._contexts[node_id]


class LocalGrid(Grid):
    """A Grid over simulated nodes with reproducible identities.

    Node ids are drawn from the seed, so they say nothing about which shard a node holds.
    Messages run when their replies are pulled, one wave at a time; replies come back in the
    order of the messages.
    """

    def __init__(self, num_clients: int, seed: int) -> None:
        ids = generator(seed, "node ids").choice(2**62, size=num_clients, replace=False)
        self._partitions = {int(node_id): k for k, node_id in enumerate(ids)}
        self._run = Run.create_empty(run_id=1)
        self._count = 0
        self._queue: list[Message] = []
        self._replies: dict[str, Message] = {}
        TaskIdentity.task_id = 1
        TaskIdentity.run_id = self._run.run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID

    @abstractmethod
    def execute(self, wave: Sequence[Message], timeout: float | None) -> list[Message]:
        """Answer a wave of messages, in their order."""

    def partition_of(self, message: Message) -> int:
        """Return which client a message is for."""
        return self._partitions[message.metadata.dst_node_id]

    @property
    def run(self) -> Run:
        """Run information."""
        return self._run

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to."""
        self._run = run
        TaskIdentity.run_id = run.run_id

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message to one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return all node ids, ascending."""
        return sorted(self._partitions)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Queue messages and return their ids.

        Raises
        ------
        ValueError
            If a message is for a node that does not exist.
        """
        ids = []
        for message in messages:
            if message.metadata.dst_node_id not in self._partitions:
                raise ValueError(f"Unknown node {message.metadata.dst_node_id}")
            self._count += 1
            message.metadata.__dict__["_message_id"] = f"{self._count:012d}"
            self._queue.append(message)
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(
        self, message_ids: Iterable[str], timeout: float | None = None
    ) -> list[Message]:
        """Run what is queued and return the replies to these messages."""
        wave, self._queue = self._queue, []
        if wave:
            for message, reply in zip(wave, self.execute(wave, timeout), strict=True):
                reply.metadata.__dict__["_message_id"] = f"{message.metadata.message_id}-reply"
                self._replies[message.metadata.message_id] = reply
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Run messages and return their replies; after ``timeout`` seconds, errors for the rest."""
        return self.pull_messages(self.push_messages(messages), timeout)


def refuse(message: Message, reason: str) -> Message:
    """Return the error reply to a message."""
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


def round_of(message: Message) -> int | str:
    """Return the server round that a message belongs to, or ``"?"`` where it does not say."""
    if message.has_content():
        for record in message.content.config_records.values():
            if "server-round" in record:
                return cast(int, record["server-round"])
    return "?"


def own_copy(message: Message) -> Message:
    """Return the message with containers of its own around the same (immutable) arrays.

    Strategies put one RecordDict into all messages of a round, and mods change what they get.
    """
    content = RecordDict()
    for name, record in message.content.items():
        content[name] = _copy_record(record)
    return Message(content=content, metadata=message.metadata)  # type: ignore[call-overload, no-any-return]


def _copy_record(record: Any) -> ArrayRecord | MetricRecord | ConfigRecord:
    copied = record.copy()  # without the checks of setting each value anew, which take longer
    for key, value in record.items():
        if isinstance(value, list):
            copied[key] = list(value)
    return cast(ArrayRecord | MetricRecord | ConfigRecord, copied)
