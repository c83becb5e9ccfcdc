"""What mods share that bound an update: read it, clip it, and answer with it and nothing else.

Arithmetic is in float64. An answer holds the model that results, one example for every client and
no metric of the client's own: what is computed on its records would leak beside the update.
"""

import logging
import math
from collections.abc import Callable, Mapping

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from clients.defenses.hiding import Handler, one_model
from fedmia.arrays import to_record
from fedmia.errors import expect
from fedmia.privacy.lattice import margin
from fedmia.records import Params
from fedmia.secagg.codec import floating

log = logging.getLogger(__name__)

Update = dict[str, NDArray[np.float64]]
"""The floating arrays of ``w_k − w``, by name."""

Change = Callable[[Update], tuple[Update, Mapping[str, float]]]
"""Returns what is sent in an update's place, and the metrics beside it."""

FLAT, PER_LAYER = "flat", "per_layer"

_MARGIN = 1 - 2.0**-22
"""What a bound is lessened by, against the receiver's rounding of ``w_k − w`` to float32."""


def expect_clip(clip: float, clipping: str) -> None:
    """Raise ``ConfigError`` for a bound, or a way to keep it, that there is not."""
    expect(0 < clip < math.inf, "clip", clip, "more than 0 and finite")
    expect(clipping in (FLAT, PER_LAYER), "clipping", clipping, f"{FLAT} or {PER_LAYER}")


def answered(message: Message, context: Context, train: Handler, change: Change) -> Message:
    """Return the answer to a message; an update in it is changed, an error passes.

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
    sent = one_model(message)
    reply = train(message, context)
    if reply.has_error():
        return reply
    update, metrics = change(_update(one_model(reply), sent))
    (name,) = reply.content.array_records
    content = RecordDict({name: to_record(_moved(sent, update))})
    content["metrics"] = MetricRecord({"num-examples": 1, **metrics})
    return Message(content, reply_to=message)


def round_of(message: Message) -> int:
    """Return the server round that a message states; 0 if none."""
    stated = (c.get("server-round") for c in message.content.config_records.values())
    return next((value for value in stated if isinstance(value, int)), 0)


def norm(update: Mapping[str, NDArray[np.float64]]) -> float:
    """Return the L2 norm of all arrays together, without overflow on the way."""
    return math.hypot(*map(_norm, update.values()))


def room(
    sizes: Mapping[str, int], clip: float, clipping: str = FLAT, error: float = 0.0
) -> list[tuple[list[str], float]]:
    """Return which arrays are clipped together, and to which norm.

    Parameters
    ----------
    sizes
        Coordinates of each floating array, by name.
    clip
        Bound on the norm of the whole.
    clipping
        ``flat``: all arrays together; ``per_layer``: each of L to ``clip/√L`` (McMahan et al.
        2018).
    error
        Largest change of a coordinate by rounding after the clipping: d coordinates are clipped to
        ``√d · error`` less, which may leave nothing.

    All are clipped to a little less, so that the sum's rounding to a lattice before noise is added
    (:mod:`fedmia.privacy.lattice`) has its share of the clip too.
    """
    groups = [[name] for name in sizes] if clipping == PER_LAYER else [list(sizes)]
    share = _MARGIN - margin(sum(sizes.values()))
    bound = share * clip / math.sqrt(max(1, len(groups)))
    counts = [sum(sizes[name] for name in group) for group in groups]
    return [(g, bound - math.sqrt(d) * error) for g, d in zip(groups, counts, strict=True)]


def clipped(update: Update, clip: float, clipping: str = FLAT, error: float = 0.0) -> Update:
    """Return the update scaled down to a bound that it exceeds; see :func:`room`.

    A zero update stays one; where :func:`room` leaves nothing, so does any other become one.
    """
    sizes = {name: values.size for name, values in update.items()}
    scaled: Update = {}
    for group, bound in room(sizes, clip, clipping, error):
        length = norm({name: update[name] for name in group})
        scale = max(bound, 0.0) / length if length > bound else 1.0
        scaled |= {name: update[name] * scale for name in group}
    return scaled


def _norm(values: NDArray[np.float64]) -> float:
    largest = float(np.abs(values).max(initial=0.0))
    if not largest:
        return 0.0
    # Not by BLAS: its threads would decide the last bits, and wait for one another.
    return largest * math.sqrt(float(np.square(values / largest).sum()))


def _update(after: Params, before: Params) -> Update:
    """Return what changed; nothing where some of it is not finite, as no noise would hide that."""
    update = {k: after[k].astype(np.float64) - before[k] for k in floating(before)}
    if all(np.isfinite(values).all() for values in update.values()):
        return update
    log.warning("the update is not finite: zeros go in its place")
    return {name: np.zeros(values.shape) for name, values in update.items()}


def _moved(before: Params, update: Update) -> dict[str, NDArray[np.generic]]:
    """Return the model plus an update, in the model's types; what is not floating as it was sent.

    Rounded to nearest, a coordinate could move further than its update says; then it is rounded
    towards the model that was sent, so that no norm grows.
    """
    params: dict[str, NDArray[np.generic]] = dict(before)
    for name, change in update.items():
        after = (before[name] + change).astype(before[name].dtype)
        beyond = np.abs(np.subtract(after, before[name], dtype=np.float64)) > np.abs(change)
        params[name] = np.where(beyond, np.nextafter(after, before[name]), after)
    return params
