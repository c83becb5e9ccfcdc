"""Answers that are not in the form of the others: one of them would end a strategy's averaging."""

import math
from collections import Counter
from collections.abc import Sequence

from flwr.app import Message, RecordDict

from fedmia.answers import metrics_of

Form = tuple[tuple[str, str, tuple[tuple[str, int], ...]], ...]


def oddities(replies: Sequence[Message], weighted_by: str) -> dict[int, str]:
    """Return what is wrong with answers that are unlike most, by node.

    Parameters
    ----------
    replies
        Answers of clients; errors are passed over.
    weighted_by
        The metric by which clients are weighed; where most state it, it has to be a number above 0.
    """
    replies = [reply for reply in replies if not reply.has_error()]
    forms = [_form(reply.content) for reply in replies]
    usual = Counter(forms).most_common(1)[0][0] if forms else ()
    weighed = any(name == weighted_by for *_, entries in usual for name, _ in entries)
    found: dict[int, str] = {}
    for reply, form in zip(replies, forms, strict=True):
        if form != usual:
            found[reply.metadata.src_node_id] = "its answer has other records than most"
        elif weighed and not _positive(metrics_of(reply.content).get(weighted_by)):
            found[reply.metadata.src_node_id] = f"its {weighted_by} is no number above 0"
    return found


def _form(content: RecordDict) -> Form:
    """Return types and names of the records, and of metrics the names and lengths."""
    metrics = content.metric_records
    return tuple(
        sorted(
            (type(record).__name__, name, _entries(dict(metrics[name])) if name in metrics else ())
            for name, record in content.items()
        )
    )


def _entries(metrics: dict[str, object]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((k, len(v) if isinstance(v, list) else -1) for k, v in metrics.items()))


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf
