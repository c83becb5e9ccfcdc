"""What strategies share that learn the sum of the updates and nothing of the single ones.

Such a strategy wraps one whose aggregate is a weighted mean, and hands it one reply: the mean.
"""

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedmia.arrays import decode, to_params, to_record
from fedmia.errors import expect
from fedmia.records import MASKED, WORDS, Params
from fedmia.secagg.codec import Mean, Words
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.wire import RECORD, Told, told
from strategies.linear import is_linear

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Begun:
    """A round under way: the model that all its clients were sent, under its name in a message."""

    server_round: int
    arrays_name: str
    model: Params
    nodes: tuple[int, ...]
    grid: Grid


@dataclass(frozen=True)
class Answer:
    """A client's reply with what hides its update; ``words`` are checked by those who use them."""

    node: int
    told: Told
    words: Words


class SumsOnly(Strategy, ABC):
    """Wrap a strategy whose aggregate is a weighted mean, and give it that mean alone.

    The wrapped strategy chooses the clients and what they are sent. Of their answers it gets one:
    the mean model, with the sum of the weights as its number of examples. A round that cannot be
    summed is abandoned: the model stays as it is, and ``abandoned`` has its number and the reason;
    ``clipped`` has the share of clipped coordinates of the others.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates.
    cohort
        Most clients of a round.
    timeout_s
        How long to wait for the answers to a stage other than training; ``None`` waits for ever.
    """

    hides_updates: ClassVar[str]
    """The name of the defence, and of the mod that it takes at the clients."""

    uniform_words: ClassVar[bool] = True
    """Whether what a client sends is to look uniform, as words under a mask do."""

    @property
    def needs_mod(self) -> str:
        """The mod without which no client could answer."""
        return self.hides_updates

    def __init__(self, inner: Strategy, cohort: int, timeout_s: float | None = None) -> None:
        name = type(inner).__name__
        allowed = "a rule that is linear in the updates, of which the server sees only the sum; "
        allowed += "others can be given sums of groups (strategy=grouped_sums)"
        expect(is_linear(inner), "inner", name, allowed)
        expect(timeout_s is None or timeout_s > 0, "timeout_s", timeout_s, "null or more than 0")
        self.inner, self.cohort, self.timeout_s = inner, cohort, timeout_s
        self.abandoned: list[tuple[int, str]] = []
        self.clipped: list[tuple[int, float]] = []
        self._begun: Begun | None = None

    @abstractmethod
    def begin(self, begun: Begun, messages: list[Message]) -> list[Message]:
        """Return the messages that ask for hidden updates.

        Raises
        ------
        ProtocolError
            If the round has to be abandoned.
        """

    @abstractmethod
    def finish(self, begun: Begun, replies: list[Message]) -> Mean:
        """Return the mean of the updates in these replies.

        Raises
        ------
        ProtocolError
            If the round has to be abandoned.
        """

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask for hidden updates; no messages if the clients cannot be brought that far."""
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        if not messages:
            return []
        try:
            name, sent = _one_model(messages)
            if len(messages) > self.cohort:
                limit = self.cohort
                raise ProtocolError(f"{len(messages)} clients: expected at most cohort={limit}")
            nodes = tuple(m.metadata.dst_node_id for m in messages)
            begun = Begun(server_round, name, to_params(sent), nodes, grid)
            asked = self.begin(begun, messages)
        except ProtocolError as error:
            self._abandon(server_round, error)
            return []
        self._begun = begun
        return asked

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Have the sum uncovered, and let the wrapped strategy make of its mean what it will."""
        begun, self._begun = self._begun, None
        if begun is None:
            return None, None
        try:
            mean = self.finish(begun, list(replies))
        except ProtocolError as error:
            self._abandon(server_round, error)
            return None, None
        if mean.clipped is not None:
            self.clipped.append((server_round, mean.clipped))
        return self.inner.aggregate_train(server_round, [mean_reply(begun, mean, begun.nodes[0])])

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as the wrapped strategy does; metrics of an evaluation are not hidden."""
        return self.inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Aggregate as the wrapped strategy does."""
        return self.inner.aggregate_evaluate(server_round, replies)

    def ask(
        self, grid: Grid, action: str, fields: Mapping[int, Mapping[str, Any]]
    ) -> list[tuple[int, Told]]:
        """Return what the clients answered to a stage; one that does not drops out of the rest."""
        messages = [
            Message(RecordDict({RECORD: told(**each)}), node, f"query.{action}")
            for node, each in fields.items()
        ]
        answers = []
        for reply in grid.send_and_receive(messages, timeout=self.timeout_s):
            node = reply.metadata.src_node_id
            if reply.has_error():
                log.warning("%s: node %d: %s", action, node, reply.error.reason)
                continue
            with dropping(node):
                answers.append((node, Told(reply)))
        return answers

    def _abandon(self, server_round: int, error: ProtocolError) -> None:
        log.warning("Round %d is abandoned: %s", server_round, error)
        self.abandoned.append((server_round, str(error)))


@contextmanager
def dropping(node: int) -> Iterator[None]:
    """Leave a client out whose answer is not what the protocol expects."""
    try:
        yield
    except ProtocolError as error:
        log.warning("node %d drops out: %s", node, error)


def usable(
    replies: Iterable[Message], nodes: Container[int]
) -> tuple[list[Answer], tuple[str, ...]]:
    """Return the answers of these nodes, and the names of the metrics that are in all of them.

    One with other metrics than most is left out: a client that lies is not to make strangers of
    the others.
    """
    found: list[tuple[Answer, tuple[str, ...]]] = []
    for reply in replies:
        node = reply.metadata.src_node_id
        if not reply.has_error() and node in nodes:
            with dropping(node):
                said = Told(reply)
                names = tuple(said.many("metrics", str))
                found.append((Answer(node, said, _words(reply)), names))
    counted = Counter(names for _, names in found).most_common(1)
    usual: tuple[str, ...] = counted[0][0] if counted else ()
    answers: list[Answer] = []
    for answer, names in found:
        with dropping(answer.node):
            if names != usual:
                raise ProtocolError(f"metrics {names}: expected {usual}, as the others")
            answers.append(answer)
    return answers, usual


def readdressed(message: Message, **fields: Any) -> Message:
    """Return a message with the same content, to the same node, and the protocol's record."""
    content, data = RecordDict(dict(message.content.items())), message.metadata
    content[RECORD] = told(**fields)
    return Message(
        content, data.dst_node_id, data.message_type, ttl=data.ttl, group_id=data.group_id
    )


def _words(reply: Message) -> Words:
    record = reply.content.array_records.get(MASKED)
    if record is None or WORDS not in record:
        raise ProtocolError("a reply without masked words")
    try:
        words: Words = decode(record[WORDS])
    except (ValueError, TypeError, EOFError) as error:
        raise ProtocolError(f"masked words that are no array ({error})") from None
    return words


def _one_model(messages: list[Message]) -> tuple[str, ArrayRecord]:
    """Return the arrays that all messages carry: updates of different models have no sum."""
    (first,) = messages[0].content.array_records.items()
    settings = dict(messages[0].content.config_records)
    for message in messages[1:]:
        if dict(message.content.config_records) != settings:
            raise ProtocolError("the wrapped strategy sends different settings to its clients")
        ((_, arrays),) = message.content.array_records.items()
        if arrays is not first[1] and arrays != first[1]:
            raise ProtocolError("the wrapped strategy sends different models to its clients")
    return first


def mean_reply(begun: Begun, mean: Mean, node: int) -> Message:
    """Return the answer that the wrapped strategy gets of a sum, as if this node had sent it."""
    params = {
        name: (value + mean.delta[name]).astype(value.dtype) if name in mean.delta else value
        for name, value in begun.model.items()
    }
    metrics = MetricRecord({"num-examples": mean.weight, **mean.metrics})
    content = RecordDict({begun.arrays_name: to_record(params), "metrics": metrics})
    return Message(content, reply_to=Message(RecordDict(), node, "train"))
