"""What mods share that send less of an update, or another one in its place, and keep the rest.

What is sent is written as bytes and read again: the answer holds the model that the decoder gives,
so that every strategy can read it, and states how many bytes it takes. The number of examples and
the client's metrics stay, so that clients are weighed as without the mod.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from clients.defenses.hiding import Handler, one_model
from clients.defenses.updates import round_of
from fedmia.arrays import LazyArray, to_params
from fedmia.errors import expect
from fedmia.records import PAYLOAD, difference
from fedmia.secagg.codec import flatten, floating
from fedmia.seeding import generator

Float32 = NDArray[np.float32]

Update = dict[str, NDArray[np.floating[Any]]]
"""The floating arrays of ``w_k − w``, by name."""

Change = Callable[[Update], tuple[Update, int]]
"""Returns what the decoder gives of an update, in new arrays, and how many bytes it was given."""


def expect_share(share: float) -> None:
    """Raise ``ConfigError`` for a share that would send nothing, or more than there is."""
    expect(0 < share <= 1, "share", share, "in (0, 1]")


def replaced(message: Message, context: Context, train: Handler, change: Change) -> Message:
    """Return the answer to a message; the update in it is changed, an error passes.

    Arrays that are not floating go as they are. So does the whole answer if the update is not
    finite, for the server to reject.

    Parameters
    ----------
    message
        Other than ``train`` messages are passed on.
    train
        What answers behind the mod.
    change
        Called once, with the update, if there is one.
    """
    if message.metadata.message_type.split(".")[0] != "train":
        return train(message, context)
    before = one_model(message)
    reply = train(message, context)
    if reply.has_error():
        return reply
    names, after = floating(before), one_model(reply)
    update = difference({k: after[k] for k in names}, before)
    size = sum(value.nbytes for value in after.values())
    ((arrays_name, trained),) = reply.content.array_records.items()
    record = ArrayRecord()
    for name, array in trained.items():
        record[name] = array
    if all(np.isfinite(values.sum(dtype=np.float64)) for values in update.values()):
        sent, stated = change(update)
        size += stated - sum(after[name].nbytes for name in names)
        for name, values in sent.items():
            values += before[name]
            record[name] = LazyArray(values.astype(before[name].dtype, copy=False))
    content = RecordDict({k: v for k, v in reply.content.items() if k != arrays_name})
    content[arrays_name] = record
    told, metrics = next(iter(reply.content.metric_records.items()), ("metrics", MetricRecord()))
    content[told] = MetricRecord({**metrics, PAYLOAD: size})
    return Message(content, reply_to=message)


def vector(update: Mapping[str, NDArray[Any]]) -> Float32:
    """Return all arrays of an update as one vector, (d,)."""
    return flatten(update).astype(np.float32, copy=False)


def arrays(flat: NDArray[Any], like: Mapping[str, NDArray[Any]]) -> Update:
    """Return a vector, (d,), as the float32 arrays of the names and shapes of ``like``."""
    found: Update = {}
    start = 0
    for name, values in like.items():
        found[name] = flat[start : start + values.size].reshape(values.shape)
        start += values.size
    return found


def corrected(key: str, context: Context, update: Update) -> Update:
    """Add to an update what was left out of those before, in place (error feedback).

    S. P. Karimireddy, Q. Rebjock, S. U. Stich, M. Jaggi, "Error Feedback Fixes SignSGD and other
    Gradient Compression Schemes", ICML 2019, Algorithm 2.

    Parameters
    ----------
    key
        Under which :func:`remember` keeps it in the client's state.
    """
    record = context.state.array_records.get(key)
    if record is None:
        return update
    for name, left in to_params(record).items():
        update[name] += left
    return update


def remember(key: str, context: Context, wanted: Update, sent: Update) -> None:
    """Keep what was left out of an update for the next one; ``wanted`` is taken over."""
    record = ArrayRecord()
    for name, values in wanted.items():
        values -= sent[name]
        record[name] = LazyArray(values)
    context.state[key] = record


def drawn(seed: int, purpose: str, message: Message, context: Context) -> np.random.Generator:
    """Return the generator of one client's draws for the round that a message states."""
    client = int(context.node_config["partition-id"])
    return generator(seed, purpose, client, round_of(message))
