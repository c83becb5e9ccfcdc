"""What is in the messages of a training round, read without believing any of it."""

from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedmia.arrays import decode, to_params
from fedmia.records import MASKED, PAYLOAD, WORDS, Params

LARGEST = 1e6
"""A change of one coordinate beyond this is none: a model so far off has no finite loss."""


def finite(array: NDArray[Any]) -> bool:
    """Whether all values are finite; a finite sum, in one pass, says so without a second."""
    with np.errstate(over="ignore", invalid="ignore"):
        return array.dtype.kind != "f" or bool(np.isfinite(array.sum()) or np.isfinite(array).all())


def small(change: NDArray[Any]) -> bool:
    """Whether no value is beyond ``LARGEST``; NaN is, and what is not floating is not asked."""
    if change.dtype.kind != "f" or not change.size:
        return True
    # NaN fails both comparisons; min and max make no temporary.
    return bool(change.max() <= LARGEST and change.min() >= -LARGEST)


def too_far(change: NDArray[Any]) -> str:
    """Return what is wrong with a change that is not :func:`small`."""
    return "too large" if np.isfinite(change).all() else "not finite"


def is_train(message: Message) -> bool:
    """Whether a message asks for an update."""
    return message.metadata.message_type.split(".")[0] == "train" and message.has_content()


def arrays_of(content: RecordDict) -> ArrayRecord:
    """Return the first arrays of a message, none if it has none."""
    return next((r for r in content.values() if isinstance(r, ArrayRecord)), ArrayRecord())


def params_like(sent: Params, content: RecordDict) -> Params:
    """Return the arrays of an answer: those that were sent, in their shapes, and numbers.

    Raises
    ------
    ValueError
        In one line, what is wrong with them. A sender may have put any bytes there.
    """
    try:
        found = to_params(arrays_of(content))
    except Exception as error:
        raise ValueError(f"arrays that cannot be read ({' '.join(str(error).split())})") from None
    for name, before in sent.items():
        value = found.get(name)
        if value is None or value.shape != before.shape or value.dtype.kind not in "biuf":
            raise ValueError(f"'{name}' is not as it was sent")
    for name in found.keys() - sent.keys():
        raise ValueError(f"'{name}' was not sent")
    return found


def metrics_of(content: RecordDict) -> MetricRecord:
    """Return the first metrics of a message, none if it has none."""
    return next((r for r in content.values() if isinstance(r, MetricRecord)), MetricRecord())


def bytes_of(content: RecordDict) -> int:
    """Return how many bytes an answer takes: as its sender states, or of its arrays."""
    stated = metrics_of(content).get(PAYLOAD)
    if isinstance(stated, int) and stated >= 0:
        return stated
    return sum(decode(array).nbytes for array in arrays_of(content).values())


def words_of(content: RecordDict) -> NDArray[Any] | None:
    """Return masked words, shape (length,); ``None`` where there are none that could be."""
    record = content[MASKED]
    if not isinstance(record, ArrayRecord) or WORDS not in record:
        return None
    words = decode(record[WORDS])
    return words if words.ndim == 1 and words.dtype in (np.uint32, np.uint64) else None


def kind_of(words: NDArray[Any]) -> str:
    """Return the length and type of words, as printed."""
    return f"{len(words)} of {words.dtype}"


def stated_round(message: Message) -> int:
    """Return the server round that a message states, 0 if none."""
    for record in message.content.values():
        if isinstance(record, ConfigRecord) and isinstance(
            stated := record.get("server-round"), int
        ):
            return stated
    return 0
