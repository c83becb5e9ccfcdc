"""How a federation is watched: every training message is read on its way.

``ObservedGrid`` sits between a strategy and any Flower Grid and changes nothing that passes.
From the train messages and replies of a round it makes one full :class:`Observation`, of which
the vantage keeps what its adversary would have seen.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedmia.answers import (
    arrays_of,
    bytes_of,
    finite,
    is_train,
    kind_of,
    metrics_of,
    params_like,
    small,
    stated_round,
    too_far,
    words_of,
)
from fedmia.arrays import Block, to_params
from fedmia.records import MASKED, MaskedInput, Observation, Params, Update, difference

ABSENT = "DroppedOutError"
"""In the reason of every reply of a client that is away on purpose (``client.dropout``)."""

SPENT = "the privacy budget is spent"
"""In the reason of every reply of a client that is away for this, and stays away."""


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
    purpose: it may have sent something, whether or not it arrived. ``answer_bytes`` are those of
    each answer that was observed, as its sender states them or else of its arrays.
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
        self.answer_bytes: list[int] = []

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
        sent = {m.metadata.dst_node_id: m for m in messages if is_train(m)}
        if not sent:
            return
        self._rounds = max(self._rounds + 1, stated_round(next(iter(sent.values()))))
        decoded: dict[int, Params] = {}  # strategies put one content into many messages
        params: dict[int, Params] = {}
        for node_id, message in sent.items():
            key = id(message.content)
            if key not in decoded:
                decoded[key] = to_params(arrays_of(message.content))
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
            elif node_id in sent:
                if not self._rejects:
                    self._check_loss(node_id, reply.content)
                (masked if MASKED in reply.content else answers).append((node_id, reply.content))
        self._count(sent, self.faults[earlier:])
        room = Block.for_copies(next(iter(params.values())), len(answers))
        updates: list[Update] = []
        for node_id, content in answers:
            if update := self._update(node_id, content, params[node_id], room):
                self.answer_bytes.append(bytes_of(content))
                updates.append(update)
        self.answer_bytes += [bytes_of(content) for _, content in masked]
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

    def _update(
        self, node_id: int, content: RecordDict, sent: Params, room: Block
    ) -> Update | None:
        """Return an answer's update; ``None``, and a fault of its sender, if it is rejected."""
        delta: Params
        try:
            after = params_like(sent, content) if self._rejects else to_params(arrays_of(content))
            with np.errstate(over="ignore", invalid="ignore"):
                delta = difference(after, sent, room)
        except ValueError as error:
            if not self._rejects:
                raise
            self._reject(node_id, str(error))
            return None
        for name, change in delta.items():
            if self._rejects and not small(change):
                self._reject(node_id, f"the update of '{name}' is {too_far(change)}")
                return None
            if not finite(change):
                raise DivergedError(node_id, self._rounds, f"the update of '{name}'")
        num_examples = metrics_of(content).get("num-examples", 0)
        return Update(node_id, int(num_examples) if isinstance(num_examples, int) else 0, delta)

    def _reject(self, node_id: int, reason: str) -> None:
        self.faults.append(Fault(self._rounds, node_id, f"rejected: {reason}"))

    def _check_loss(self, node_id: int, content: RecordDict) -> None:
        loss = metrics_of(content).get("train-loss", 0.0)
        if isinstance(loss, float) and not np.isfinite(loss):
            raise DivergedError(node_id, self._rounds, f"the loss ({loss})")

    def _inputs(self, answers: Sequence[tuple[int, RecordDict]]) -> list[MaskedInput]:
        """Return the masked words that came; those unlike most others are their sender's fault."""
        words = {node_id: words_of(content) for node_id, content in answers}
        kinds = Counter(kind_of(w) for w in words.values() if w is not None)
        usual = kinds.most_common(1)[0][0] if kinds else "1-d, uint32 or uint64"
        inputs = []
        for node_id, found in words.items():
            if found is not None and kind_of(found) == usual:
                inputs.append(MaskedInput(node_id, found))
            else:
                got = "none" if found is None else kind_of(found)
                reason = f"masked words: expected {usual}, got {got}"
                self.faults.append(Fault(self._rounds, node_id, reason))
        return inputs
