"""A row of the result: what scores say, held against who was a member."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmia.membership import Membership
from fedmia.metrics import roc_points
from fedmia.pairs import pair
from fedmia.seeding import generator
from fedmia.stage import Stage

_BINS = 40


def measured(
    stage: Stage, scores: NDArray[np.float64], owner: NDArray[np.int64], clients: tuple[int, ...]
) -> dict[str, Any]:
    """Return the fields of a row that ran, but for its name and its time.

    Parameters
    ----------
    stage
        Whose candidates were asked about.
    scores
        Shape (targets, n).
    owner
        Shape (n,): in which row a candidate is a member, −1 held out, −2 not evaluated.
    clients
        The targets' numbers.
    """
    metrics: Membership = stage.metrics
    labels = stage.dataset.y[stage.candidates.index]
    # the same halves and resamples for every attack: equal rankings have equal figures
    row = metrics.evaluate(scores, owner, labels, generator(stage.seed, "metrics"))
    for client, target in zip(clients, row["per_target"], strict=True):
        target["client"] = client
    pairs = pair(scores, owner)
    fpr, tpr = roc_points(pairs.scores, pairs.members)
    return {
        "status": "ok",
        **row,
        "roc": {"fpr": fpr.tolist(), "tpr": tpr.tolist()},
        "histogram": _histogram(scores, owner),
    }


def _histogram(scores: NDArray[np.float64], owner: NDArray[np.int64]) -> dict[str, Any]:
    rows = np.arange(len(scores))[:, None]
    edges = np.histogram_bin_edges(scores[:, owner != -2], bins=_BINS)
    populations = {
        "members": owner == rows,
        "nonmembers": np.broadcast_to(owner == -1, scores.shape),
        "other_members": (owner >= 0) & (owner != rows),
    }
    counts = {k: np.histogram(scores[mask], edges)[0].tolist() for k, mask in populations.items()}
    others = counts["other_members"] if populations["other_members"].any() else None
    return {"edges": edges.tolist(), **counts, "other_members": others}
