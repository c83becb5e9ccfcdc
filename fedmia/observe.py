"""Who watches a federation, and how: the place is chosen, and every training message is read.

``ObservedGrid`` sits between a strategy and any Flower Grid and changes nothing that passes.
From the train messages and replies of a round it makes one full :class:`Observation`, of which
the vantage keeps what its adversary would have seen.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedmia.arrays import Block, decode, to_params
from fedmia.errors import ConfigError, expect
from fedmia.records import MASKED, WORDS, MaskedInput, Observation, Params, Update, difference
from fedmia.vantages import VANTAGES, MaskedServer, Participant, Server, Vantage, named


@dataclass(frozen=True)
class Observer:
    """Who watches and what is kept.

    Parameters
    ----------
    vantage
        ``server``, ``aggregate``, ``participant`` or ``final_model``.
    participant
        Which client is the curious one (its number, from 0), for vantage ``participant``.
    keep_transcript
        Whether the transcript stays in the run directory after the attacks.
    """

    vantage: str = "server"
    participant: int = 0
    keep_transcript: bool = True

    def __post_init__(self) -> None:
        names = ", ".join(v.name for v in VANTAGES)
        expect(named(self.vantage) is not None, "vantage", self.vantage, f"one of {names}")
        expect(self.participant >= 0, "participant", self.participant, "at least 0")

    def stand(self, nodes: Mapping[int, int], hides_updates: str = "") -> Vantage:
        """Return the vantage among these nodes (node id → client number).

        Parameters
        ----------
        nodes
            All clients.
        hides_updates
            The defence that keeps single updates from the server; empty if none does.

        Raises
        ------
        ConfigError
            If the curious participant is not among the clients.
        """
        if self.vantage == Participant.name:
            for node_id, client in nodes.items():
                if client == self.participant:
                    return Participant(node_id)
            raise ConfigError(
                f"observer.participant={self.participant}: expected in 0..{len(nodes) - 1}"
            )
        if self.vantage == Server.name and hides_updates:
            return MaskedServer(hides_updates)
        return next(v() for v in VANTAGES if v.name == self.vantage)


ABSENT = "DroppedOutError"
"""In the reason of every reply of a client that is away on purpose (``client.dropout``)."""

SPENT = "the privacy budget is spent"
"""In the reason of every reply of a client that is away for this, and stays away."""


LARGEST = 1e15
"""A value of an answer beyond this is none: its square would leave float32."""


class BudgetSpentError(RuntimeError):
    """Nobody is left to train: every client's privacy budget is spent; ``round`` says when."""

    def __init__(self, server_round: int, asked: int) -> None:
        super().__init__(f"the privacy budgets of all {asked} clients are spent")
        self.round = server_round


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
    abandons
        Whether the strategy goes on where no client of a round answered: it leaves the model as
        it is, or moves it by noise alone.
    rejects
        Whether the strategy leaves out an update that is not finite: it is a fault of its sender
        then, and no part of the observation.

    Raises
    ------
    DivergedError
        When a reply holds a value that is not finite (before ``on_round`` is called), unless the
        strategy ``rejects`` it.
    BudgetSpentError
        When no client of a round answered and every node has said that its privacy budget is
        spent, in this round or before.
    EveryClientFailedError
        When no client of a round answered and some failed; a round in which all were away on
        purpose is passed over, and every such round if the strategy ``abandons``.

    Notes
    -----
    ``participations`` has, by node, the rounds in which it was asked to train and was not away on
    purpose: it may have sent something, whether or not it arrived.
    """

    def __init__(
        self,
        grid: Grid,
        on_round: Callable[[Observation], None],
        abandons: bool = False,
        rejects: bool = False,
    ) -> None:
        self._grid = grid
        self._on_round = on_round
        self._abandons = abandons
        self._rejects = rejects
        self._pushed: dict[str, Message] = {}
        self._pulled: list[Message] = []
        self._rounds = 0
        self._spent: set[int] = set()
        self.rounds_seen = 0
        self.faults: list[Fault] = []
        self.participations: dict[int, list[int]] = {}

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
        answers: list[tuple[int, RecordDict]] = []
        masked: list[tuple[int, RecordDict]] = []
        earlier = len(self.faults)
        for reply in replies:
            node_id = by_id.get(reply.metadata.reply_to_message_id, reply.metadata.src_node_id)
            if reply.has_error():
                reason = reply.error.reason or f"error {reply.error.code}"
                self.faults.append(Fault(self._rounds, node_id, reason))
            elif node_id in sent and self._usable(node_id, reply.content, params[node_id]):
                (masked if MASKED in reply.content else answers).append((node_id, reply.content))
        self._count(sent, self.faults[earlier:])
        room = Block.for_copies(next(iter(params.values())), len(answers))
        updates = [self._update(node_id, c, params[node_id], room) for node_id, c in answers]
        inputs = self._inputs(masked)
        if not updates and not inputs:
            reasons = [fault.reason for fault in self.faults[earlier:]]
            nodes = {*self.get_node_ids(), *self.participations} if self._spent else set()
            if nodes and nodes <= self._spent:
                raise BudgetSpentError(self._rounds, len(nodes))
            if self._abandons or (reasons and all(ABSENT in reason for reason in reasons)):
                return
            first = next((r for r in reasons if ABSENT not in r), "no replies")
            raise EveryClientFailedError(
                f"round {self._rounds}: none of {len(sent)} clients answered; first reason: {first}"
            )
        first_sent = next(iter(params.values()))
        self.rounds_seen += 1
        self._on_round(
            Observation(
                self._rounds,
                first_sent,
                tuple(sent),
                tuple(sorted(updates, key=lambda u: u.node_id)),
                masked=tuple(sorted(inputs, key=lambda m: m.node_id)),
            )
        )

    def _count(self, sent: Iterable[int], faults: Iterable[Fault]) -> None:
        faults = list(faults)
        away = {fault.node_id for fault in faults if ABSENT in fault.reason}
        self._spent |= {fault.node_id for fault in faults if SPENT in fault.reason}
        for node_id in sent:
            if node_id not in away:
                self.participations.setdefault(node_id, []).append(self._rounds)

    def _usable(self, node_id: int, content: RecordDict, sent: Params) -> bool:
        """Whether an answer is observed; if not, it is a fault of its sender."""
        if not self._rejects:
            self._check_loss(node_id, content)
            return True
        answered = to_params(_arrays(content))
        for name, before in sent.items():
            value = answered.get(name)
            if value is None or value.shape != before.shape:
                reason = f"rejected: '{name}' is not as it was sent"
            elif not _small(value):
                reason = f"rejected: '{name}' is not finite, or too large"
            else:
                continue
            self.faults.append(Fault(self._rounds, node_id, reason))
            return False
        return True

    def _update(self, node_id: int, content: RecordDict, sent: Params, room: Block) -> Update:
        delta = difference(to_params(_arrays(content)), sent, room)
        for name, change in delta.items():
            if not _finite(change):
                raise DivergedError(node_id, self._rounds, f"the update of '{name}'")
        num_examples = _metrics(content).get("num-examples", 0)
        return Update(node_id, int(num_examples) if isinstance(num_examples, int) else 0, delta)

    def _check_loss(self, node_id: int, content: RecordDict) -> None:
        loss = _metrics(content).get("train-loss", 0.0)
        if isinstance(loss, float) and not np.isfinite(loss):
            raise DivergedError(node_id, self._rounds, f"the loss ({loss})")

    def _inputs(self, answers: Sequence[tuple[int, RecordDict]]) -> list[MaskedInput]:
        """Return the masked words that came; those unlike most others are their sender's fault."""
        words = {node_id: _words(content) for node_id, content in answers}
        kinds = Counter(_kind(w) for w in words.values() if w is not None)
        usual = kinds.most_common(1)[0][0] if kinds else "1-d, uint32 or uint64"
        inputs = []
        for node_id, found in words.items():
            if found is not None and _kind(found) == usual:
                inputs.append(MaskedInput(node_id, found))
            else:
                got = "none" if found is None else _kind(found)
                reason = f"masked words: expected {usual}, got {got}"
                self.faults.append(Fault(self._rounds, node_id, reason))
        return inputs


def _finite(array: NDArray[Any]) -> bool:
    """Whether all values are finite; a finite sum, in one pass, says so without a second."""
    with np.errstate(over="ignore", invalid="ignore"):
        return array.dtype.kind != "f" or bool(np.isfinite(array.sum()) or np.isfinite(array).all())


def _small(array: NDArray[Any]) -> bool:
    """Whether all values are finite, and their squares are in float32."""
    if array.dtype.kind != "f" or not array.size:
        return True
    return bool(array.max() <= LARGEST and array.min() >= -LARGEST)  # NaN fails both


def _is_train(message: Message) -> bool:
    return message.metadata.message_type.split(".")[0] == "train" and message.has_content()


def _arrays(content: RecordDict) -> ArrayRecord:
    return next((r for r in content.values() if isinstance(r, ArrayRecord)), ArrayRecord())


def _metrics(content: RecordDict) -> MetricRecord:
    return next((r for r in content.values() if isinstance(r, MetricRecord)), MetricRecord())


def _words(content: RecordDict) -> NDArray[Any] | None:
    record = content[MASKED]
    if not isinstance(record, ArrayRecord) or WORDS not in record:
        return None
    words = decode(record[WORDS])
    return words if words.ndim == 1 and words.dtype in (np.uint32, np.uint64) else None


def _kind(words: NDArray[Any]) -> str:
    return f"{len(words)} of {words.dtype}"


def _stated_round(message: Message) -> int:
    for record in message.content.values():
        if isinstance(record, ConfigRecord) and isinstance(
            stated := record.get("server-round"), int
        ):
            return stated
    return 0
