"""What mods share that hide a client's update: what is asked, what goes in, and how it leaves.

Nothing of the client's own is to reach the server beside the hidden words: a message that would
have it answered in the open is refused, and errors are told in fixed phrases. The full text of an
error is in the client's own log.
"""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict

from fedmia.arrays import encode, to_params
from fedmia.records import MASKED, PAYLOAD, WORDS, Params, difference
from fedmia.secagg.codec import Words
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.wire import RECORD, told

log = logging.getLogger(__name__)

Handler = Callable[[Message, Context], Message]

_PARTITION = "query.partition"


@dataclass(frozen=True)
class Contribution:
    """What a client adds to the sum: its update, its metrics and its number of examples."""

    delta: Params
    metrics: dict[str, float]
    weight: int


def asks_to_train(message: Message, actions: Collection[str], allow_evaluation: bool) -> bool:
    """Whether a message asks for an update; if not, it may be answered in the open.

    Parameters
    ----------
    message
        From the server.
    actions
        Of the ``query`` messages that the mod answers.
    allow_evaluation
        Whether ``evaluate`` messages may be answered: with metrics on the client's own records,
        under any model that the server chooses.

    Raises
    ------
    ProtocolError
        If it asks for anything else.
    """
    kind = message.metadata.message_type
    category = kind.split(".")[0]
    if category == "evaluate" and not allow_evaluation:
        raise ProtocolError("evaluate: refused, its answer is not hidden (allow_evaluation=false)")
    in_the_open = category == "evaluate" or kind == _PARTITION
    if category != "train" and not in_the_open and kind not in {f"query.{a}" for a in actions}:
        raise ProtocolError(f"{kind}: refused, expected train or a query of the protocol")
    return category == "train"


def expect_round(message: Message, server_round: int) -> None:
    """Refuse settings that state another round than the protocol's.

    Training draws its randomness by the stated round. If that could stand still, two rounds would
    hold the same updates, and one with a client fewer would give that client's away.

    Raises
    ------
    ProtocolError
        If they state none, or another.
    """
    records = message.content.config_records
    settings = [record for name, record in records.items() if name != RECORD]
    stated = [record["server-round"] for record in settings if "server-round" in record]
    if not stated or any(type(s) is not int or s != server_round for s in stated):
        raise ProtocolError(f"server-round: expected {server_round}, the round of the protocol")


def expect_later(server_round: int, before: int) -> None:
    """Raise ``ProtocolError`` unless a round comes after the last one that was answered."""
    if server_round <= before:
        raise ProtocolError(f"round {server_round}: expected a later one than {before} (replayed?)")


def contribution(
    message: Message, context: Context, train: Handler, max_weight: int
) -> Contribution:
    """Have a ``train`` message answered behind the mod, and return what came of it.

    Raises
    ------
    ProtocolError
        In a fixed phrase: if training failed (with the type of its error), or its result cannot be
        summed.
    """
    sent = one_model(message)
    with discreet("the training failed"):
        reply = train(message, context)
    if reply.has_error():
        log.warning("the training failed: %s", reply.error.reason)
        raise ProtocolError(f"the training failed: error {reply.error.code}")
    with discreet("the answer to training is malformed"):
        delta, metrics = difference(one_model(reply), sent), _metrics(reply.content)
    if not all(np.isfinite(change).all() for change in delta.values()):
        raise ProtocolError("the update is not finite")
    if not all(isinstance(value, int | float) for value in metrics.values()):
        raise ProtocolError("a metric is not a number, to be summed")
    if not all(np.isfinite(value) for value in metrics.values()):
        raise ProtocolError("a metric is not finite")
    weight = int(metrics.pop("num-examples", 1))
    metrics.pop(PAYLOAD, None)  # words are as many whatever they hide
    if weight < 1 or 1 < max_weight < weight:
        what = "less than 1" if weight < 1 else "beyond max_weight"
        raise ProtocolError(f"the number of examples is {what}")
    return Contribution(delta, metrics, weight)


@contextmanager
def discreet(phrase: str) -> Iterator[None]:
    """Turn any error into a ``ProtocolError`` of this phrase and the error's type, and log it."""
    try:
        yield
    except Exception as error:
        log.warning("%s: %s: %s", phrase, type(error).__name__, error)
        raise ProtocolError(f"{phrase}: {type(error).__name__}") from None


def one_model(message: Message) -> Params:
    """Return the model that a message carries."""
    (params,) = (to_params(record) for record in message.content.array_records.values())
    return params


def hidden(message: Message, words: Words, **fields: object) -> Message:
    """Return the answer in which words, shape (length,), and the protocol's record stand alone."""
    content = RecordDict({RECORD: told(**fields), "metrics": MetricRecord()})
    content[MASKED] = ArrayRecord({WORDS: encode(words)})
    return Message(content, reply_to=message)


def _metrics(content: RecordDict) -> dict[str, Any]:
    return {
        name: value for record in content.metric_records.values() for name, value in record.items()
    }
