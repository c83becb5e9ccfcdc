"""How a detector of anomalies travels: the strategy's question to a client, and the answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fedmia.arrays import to_params, to_record
from fedmia.detectors import KINDS, Detector, untrained
from fedmia.records import Params
from fedmia.robust_scale import Scale

ACTION = "anomaly"
"""The action of the message that asks a client to train the detector."""

_WEIGHTS, _SCALES, _SETTINGS = "detector", "scales", "settings"


@dataclass(frozen=True, eq=False)
class Asked:
    """A question to train a detector.

    Parameters
    ----------
    detector
        As the server has it.
    scales
        By round, where most clients' features were.
    step
        How many questions there were before.
    """

    detector: Detector
    scales: Mapping[int, Scale]
    step: int


def question(
    node: int,
    detector: Detector,
    shape: tuple[str, int, int],
    scales: Mapping[int, Scale],
    step: int,
) -> Message:
    """Return the message to a node; ``shape`` is the detector's kind and its two widths."""
    kind, hidden, latent = shape
    numbers = sorted(scales)
    settings: dict[str, Any] = {"kind": kind, "hidden": hidden, "latent": latent}
    settings |= {"rounds": numbers, "step": step}
    tables = {
        "centres": np.stack([scales[number].centre for number in numbers]),
        "spreads": np.stack([scales[number].spread for number in numbers]),
    }
    content = RecordDict(
        {
            _WEIGHTS: to_record(detector.params()),
            _SCALES: to_record(tables),
            _SETTINGS: ConfigRecord(settings),
        }
    )
    return Message(content, node, f"query.{ACTION}")


def asked(message: Message) -> Asked:
    """Return what a message asks.

    Raises
    ------
    ValueError
        If its parts do not fit one another.
    """
    settings: dict[str, Any] = dict(message.content.config_records[_SETTINGS])
    tables = to_params(message.content.array_records[_SCALES])
    centres, spreads = tables["centres"], tables["spreads"]
    if settings["kind"] not in KINDS or centres.shape != spreads.shape:
        raise ValueError("a question about a detector that is none")
    width = centres.shape[1]
    detector = untrained(settings["kind"], width, settings["hidden"], settings["latent"], 0)
    detector.load(to_params(message.content.array_records[_WEIGHTS]))
    pairs = zip(centres, spreads, strict=True)
    scales = {r: Scale(*pair) for r, pair in zip(settings["rounds"], pairs, strict=True)}
    return Asked(detector, scales, settings["step"])


def answer(message: Message, detector: Detector) -> Message:
    """Return the reply with the trained weights."""
    return Message(RecordDict({_WEIGHTS: to_record(detector.params())}), reply_to=message)


def answered(reply: Message) -> Params:
    """Return the weights in a reply; nothing where it has none."""
    record = reply.content.get(_WEIGHTS)
    return to_params(record) if isinstance(record, ArrayRecord) else {}
