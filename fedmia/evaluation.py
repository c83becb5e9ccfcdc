"""Run every attack on a transcript and measure it; the only place where scores meet membership."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import tensor

from fedmia import adversary, audit
from fedmia.attacks.base import Attack, NotApplicableError
from fedmia.knowledge import Knowledge, Positions, View
from fedmia.membership import Membership
from fedmia.metrics import auc, roc_points
from fedmia.pairs import pair
from fedmia.records import Examples
from fedmia.seeding import generator
from fedmia.signals.forward import evaluate as forward
from fedmia.stage import Stage

log = logging.getLogger(__name__)

OnAttack = Callable[[int, int, str], None]
"""Called before each attack with how many are done, how many there are, and its name."""

_BINS = 40
_CURVE_POINTS = 10
_CHUNK = 256


@dataclass(frozen=True)
class Targets:
    """Who is asked about, and the truth.

    ``nodes`` are the targets' node ids (one ``None``: the federation as a whole), ``clients``
    their numbers; ``owner`` (n,) says in which row of the scores a candidate is a member, −1 held
    out, −2 not evaluated. ``known`` are the members and non-members of each target that its
    adversary knows, as positions among the candidates; they are not evaluated.
    """

    nodes: tuple[int | None, ...]
    clients: tuple[int, ...]
    owner: NDArray[np.int64]
    known: tuple[tuple[Positions, Positions], ...]


def targets(stage: Stage, view: View, nodes: Mapping[int, int]) -> Targets:
    """Return each client whose update was seen or, at other vantages, the federation as one.

    Where no update was seen at all, as after a failure, every client is. Members of a client
    that was never seen are nobody's targets; at vantage ``participant`` the curious client's own
    records are left out.
    """
    owner = stage.candidates.owner
    if stage.observer.kind.per_client:
        seen = sorted((nodes[n], n) for n in view.transcript.node_ids or nodes)
        clients = tuple(client for client, _ in seen)
        rows = np.full(stage.config.num_clients + 1, -2)
        rows[list(clients)] = np.arange(len(clients))
        rows[-1] = -1
        return _with_known(stage, tuple(n for _, n in seen), clients, rows[owner])
    merged = np.minimum(owner, 0)
    if stage.observer.vantage == "participant":
        merged = np.where(owner == stage.observer.participant, -2, merged)
    return _with_known(stage, (None,), (0,), merged)


def _with_known(
    stage: Stage,
    nodes: tuple[int | None, ...],
    clients: tuple[int, ...],
    owner: NDArray[np.int64],
) -> Targets:
    """Tell each adversary some members, and held-out records of the same labels.

    The told members have the label proportions of all, so that those left to judge have them too.
    """
    share, rng = stage.config.knowledge.known_members, generator(stage.seed, "known members")
    labels = stage.dataset.y[stage.candidates.index]
    held_out = rng.permutation(np.flatnonzero(owner == -1))
    known: list[tuple[Positions, Positions]] = []
    for row in range(len(nodes)):
        members = _spread(rng.permutation(np.flatnonzero(owner == row)), labels)
        told = members[: min(round(share * len(members)), len(members) - 1)]
        known.append((told, _alike(held_out, labels, told)))
    judged = owner.copy()
    judged[np.concatenate([np.concatenate(pair) for pair in known])] = -2
    return Targets(nodes, clients, judged, tuple(known))


def _spread(positions: Positions, labels: NDArray[np.int64]) -> Positions:
    """Return the positions in an order of which every beginning has the labels of the whole."""
    own = labels[positions]
    place = np.array([(own[:i] == label).sum() for i, label in enumerate(own)])
    return positions[np.argsort((place + 0.5) / np.bincount(own)[own], kind="stable")]


def _alike(pool: Positions, labels: NDArray[np.int64], like: Positions) -> Positions:
    """Return the first of the pool that have, label for label, those of ``like`` if it has them."""
    wanted = np.bincount(labels[like], minlength=int(labels.max()) + 1)
    return np.concatenate([pool[labels[pool] == c][:count] for c, count in enumerate(wanted)])


@dataclass
class Measured:
    """One row of the result for each attack and baseline, and the attacks' raw scores."""

    attacks: list[dict[str, Any]]
    baselines: list[dict[str, Any]]
    scores: dict[str, NDArray[np.float64]]
    seconds: float


def evaluate(
    stage: Stage,
    view: View,
    who: Targets,
    failure: str | None,
    on_attack: OnAttack = lambda done, total, name: None,
) -> Measured:
    """Attack and measure.

    A vantage that lacks what an attack needs gives a ``not_applicable`` row. Where training
    failed, what the vantage shows is not what was asked for, and every attack is marked failed.
    """
    start = time.perf_counter()
    examples = stage.dataset.examples(stage.candidates.index)
    measured = Measured([], [], {}, 0.0)
    knows = adversary.knowledge(stage, view, who.known)
    shown = view.transcript.shows | knows[0].gives
    for done, (name, attack) in enumerate(stage.attacks.items()):
        on_attack(done, len(stage.attacks), name)
        row: dict[str, Any] = {"name": name, "vantage": view.transcript.vantage}
        measured.attacks.append(row)
        try:
            attack.check_applicable(view.transcript.vantage, shown)
            if failure is not None:
                row |= {"status": "failed", "reason": failure}
                continue
            began, apart = time.perf_counter(), _shared_seconds(view, knows)
            scores = _scores(attack, view, who, examples, knows)
            spent = time.perf_counter() - began - (_shared_seconds(view, knows) - apart)
            row |= _measure(name, scores, who, examples, stage)
            row["auc_per_round"] = _curve(attack, view, who, examples, knows)
            row["seconds"] = max(spent, 0.0)
            measured.scores[name] = scores
        except NotApplicableError as error:
            row |= {"status": "not_applicable", "reason": str(error)}
        except Exception as error:
            log.exception("attack %s failed", name)
            row |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    for name, scores in _blind(stage, who, examples).items():
        began = time.perf_counter()
        row = {"name": name, "vantage": "blind"} | _measure(name, scores, who, examples, stage)
        row |= {"auc_per_round": None, "seconds": time.perf_counter() - began}
        measured.baselines.append(row)
    measured.seconds = time.perf_counter() - start
    return measured


def _scores(
    attack: Attack, view: View, who: Targets, examples: Examples, knows: Sequence[Knowledge]
) -> NDArray[np.float64]:
    pairs = zip(who.nodes, knows, strict=True)
    return np.stack([attack(view, node, examples, known) for node, known in pairs])


def _shared_seconds(view: View, knows: Sequence[Knowledge]) -> float:
    """Return the time spent so far on what all attacks share."""
    shadows = knows[0].shadows
    return view.signals.seconds + (shadows.seconds if shadows else 0.0)


def _measure(
    name: str, scores: NDArray[np.float64], who: Targets, examples: Examples, stage: Stage
) -> dict[str, Any]:
    metrics: Membership = stage.metrics
    row = metrics.evaluate(scores, who.owner, examples.y, generator(stage.seed, f"metrics {name}"))
    for client, target in zip(who.clients, row["per_target"], strict=True):
        target["client"] = client
    pairs = pair(scores, who.owner)
    fpr, tpr = roc_points(pairs.scores, pairs.members)
    return {
        "status": "ok",
        **row,
        "roc": {"fpr": fpr.tolist(), "tpr": tpr.tolist()},
        "histogram": _histogram(scores, who.owner),
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


def _curve(
    attack: Attack, view: View, who: Targets, examples: Examples, knows: Sequence[Knowledge]
) -> list[dict[str, Any]] | None:
    """Return the pooled AUC that a cheap attack would have had after each of some rounds."""
    total = len(view.transcript)
    if total < 2 or not attack.cheap:
        return None
    points = []
    for rounds in np.unique(np.linspace(1, total, min(total, _CURVE_POINTS)).round().astype(int)):
        # after all rounds, the model that came out of the last one is known as well
        signals = view.signals if rounds == total else view.signals.until(int(rounds))
        early = View(view.transcript, signals)
        entry: dict[str, Any] = {"round": view.transcript.rounds[rounds - 1], "auc": None}
        points.append(entry)
        try:
            scores = _scores(attack, early, who, examples, knows)
        except NotApplicableError:
            continue
        pairs = pair(scores, who.owner)
        entry["auc"] = auc(pairs.scores, pairs.members)
    return points


def _blind(stage: Stage, who: Targets, examples: Examples) -> dict[str, NDArray[np.float64]]:
    """Return the scores of baselines that never look at training."""
    rng, num_targets = generator(stage.seed, "baselines"), len(who.nodes)
    untrained, _ = forward(stage.model.eval(), tensor(examples.x), tensor(examples.y), _CHUNK)
    return {
        "label_prior": audit.label_prior(examples.y, who.owner, num_targets),
        "raw_features": audit.raw_features(examples.x, examples.y, who.owner, num_targets, rng),
        "untrained_model": audit.untrained(untrained, num_targets),
    }
