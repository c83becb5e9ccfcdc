"""What cached signals belong to: a transcript as one vantage sees it, a model, candidates."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import nn

from fedmia.records import Examples, Observation
from fedmia.transcript import Transcript

SCHEMA = 2
"""Part of every key: raise it when the meaning or precision of a signal changes."""


def identify(transcript: Transcript, model: nn.Module, candidates: Examples) -> str:
    """Return the sha256 of everything the signals depend on, in hexadecimal.

    Of a transcript's arrays, its first and last rounds and its final model are hashed: what
    happened in between shows in the last.
    """
    digest = hashlib.sha256()
    facts = (
        SCHEMA,
        transcript.vantage,
        transcript.rounds,
        transcript.node_ids,
        f"{type(model).__module__}.{type(model).__qualname__}",
        str(model),
        [(k, p.requires_grad) for k, p in model.named_parameters()],
    )
    digest.update(repr(facts).encode())
    arrays: list[Any] = [candidates.x, candidates.y]
    for index in sorted({0, len(transcript) - 1}) if len(transcript) else []:
        arrays += _arrays(transcript[index])
    arrays += (transcript.final or {}).values()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _arrays(observation: Observation) -> Iterator[Any]:
    yield from observation.params.values()
    for update in observation.updates:
        yield from update.delta.values()
