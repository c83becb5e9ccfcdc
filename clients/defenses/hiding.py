"""What mods share that hide a client's update from the server: what goes in, and how it leaves."""

from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict

from fedmia.arrays import encode, to_params
from fedmia.records import MASKED, WORDS, Params, difference
from fedmia.secagg.codec import Words
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.wire import RECORD, told

Handler = Callable[[Message, Context], Message]


@dataclass(frozen=True)
class Contribution:
    """What a client adds to the sum: its update, its metrics and its number of examples."""

    delta: Params
    metrics: dict[str, float]
    weight: int


def is_train(message: Message) -> bool:
    """Whether a message asks for an update."""
    return message.metadata.message_type.split(".")[0] == "train"


def one_model(message: Message) -> Params:
    """Return the model that a message carries."""
    (params,) = (to_params(record) for record in message.content.array_records.values())
    return params


def contribution(reply: Message, sent: Params) -> Contribution:
    """Return what is in the answer to a ``train`` message that carried the model ``sent``.

    Raises
    ------
    ProtocolError
        If a metric is not a number.
    """
    metrics = _numbers(reply.content)
    weight = int(metrics.pop("num-examples", 1))
    return Contribution(difference(one_model(reply), sent), metrics, weight)


def hidden(message: Message, words: Words, **fields: object) -> Message:
    """Return the answer in which words, shape (length,), and the protocol's record stand alone."""
    content = RecordDict({RECORD: told(**fields), "metrics": MetricRecord()})
    content[MASKED] = ArrayRecord({WORDS: encode(words)})
    return Message(content, reply_to=message)


def _numbers(content: RecordDict) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for record in content.metric_records.values():
        for name, value in record.items():
            if not isinstance(value, int | float):
                raise ProtocolError(f"metric {name!r}: expected a number, to be summed")
            metrics[name] = value
    return metrics
