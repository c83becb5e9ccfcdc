"""What clients send, as ``result.json`` says it: how many bytes, and what a whole model takes.

Counted are the answers to ``train`` messages that could be read: the bytes that a client states
its update takes (:data:`fedmia.records.PAYLOAD`), or those of its arrays. What surrounds them in a
message is left out, and so are messages of a protocol beside them.
"""

from collections.abc import Sequence
from typing import Annotated, TypedDict

from fedmia.schema import Count, Rule


class Communication(TypedDict):
    """Bytes that clients sent in training."""

    bytes_per_client_round: Annotated[float, Rule(">= 0", lambda v: v >= 0)]  # mean of an answer
    up: Count  # all answers together
    dense: Count  # of one whole model


def counted(answers: Sequence[int], dense: int) -> Communication | None:
    """Return what was sent, ``None`` if there was nothing.

    Parameters
    ----------
    answers
        Bytes of each answer.
    dense
        Bytes of a whole model.
    """
    if not answers:
        return None
    mean = sum(answers) / len(answers)
    return {"bytes_per_client_round": mean, "up": sum(answers), "dense": dense}


def line(found: Communication) -> str:
    """Return it in words."""
    mean, dense = found["bytes_per_client_round"], found["dense"]
    share = f"{mean / dense:.1%} of the whole model" if dense else "of a model without arrays"
    return f"{_size(mean)} by a client in a round, {share}; {_size(found['up'])} in all"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} GB"
