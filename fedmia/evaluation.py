"""Run every attack on a transcript and measure it; the only place where scores meet membership."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import tensor

from fedmia import adversary, audit, curves, proved
from fedmia.attacks.base import Attack, NotApplicableError
from fedmia.knowledge import Knowledge, Positions, View
from fedmia.membership import Membership
from fedmia.metrics import roc_points
from fedmia.pairs import pair
from fedmia.records import Examples
from fedmia.seeding import generator
from fedmia.signals.forward import evaluate as forward
from fedmia.stage import Stage

log = logging.getLogger(__name__)

OnAttack = Callable[[int, int, str], None]
"""Called before each attack with how many are done, how many there are, and its name; and while
shadow models are trained, with rounds instead of attacks."""

_BINS = 40
_CHUNK = 256


@dataclass(frozen=True)
class Targets:
    """Who is asked about, and the truth.

    ``nodes`` are the targets' node ids (one ``None``: the federation as a whole), ``clients``
    their numbers; ``owner`` (n,) says in which row of the scores a candidate is a member, −1 held
    out, −2 not evaluated. ``known`` are the members and non-members of each target that its
    adversary knows, as positions among the candidates; they are not evaluated. ``host`` (n,) is
    the row that a canary would be a member of, whether or not it is, −2 for one that is not
    evaluated; ``None`` where the candidates are no canaries.
    """

    nodes: tuple[int | None, ...]
    clients: tuple[int, ...]
    owner: NDArray[np.int64]
    known: tuple[tuple[Positions, Positions], ...]
    host: NDArray[np.int64] | None = None

    def without(self, rows: Collection[int]) -> "Targets":
        """Return the other targets; members of those left out are not evaluated."""
        if not rows:
            return self
        kept = [row for row in range(len(self.nodes)) if row not in rows]
        place = np.full(len(self.nodes) + 2, -2)  # of each row; the last two are −2 and −1
        place[kept], place[-1] = np.arange(len(kept)), -1
        return Targets(
            tuple(self.nodes[row] for row in kept),
            tuple(self.clients[row] for row in kept),
            place[self.owner],
            tuple(self.known[row] for row in kept),
            None if self.host is None else place[self.host],
        )


def targets(stage: Stage, view: View, nodes: Mapping[int, int]) -> Targets:
    """Return each client whose update was seen or, where none can be, the federation as one.

    Where updates are shown and none was seen, as after a failure, every client is. Members of a
    client that was never seen are nobody's targets; at vantage ``participant`` the curious client's
    own records are left out.
    """
    return targets_among(stage, {n: nodes[n] for n in view.transcript.node_ids or nodes})


def targets_among(stage: Stage, nodes: Mapping[int, int]) -> Targets:
    """Return the targets, no canary clients, where all these nodes (id → client) are seen."""
    owner, host = stage.candidates.owner, stage.candidates.host
    if stage.vantage.per_client:
        seen = sorted((client, n) for n, client in nodes.items() if client < stage.holders)
        clients = tuple(client for client, _ in seen)
        rows = np.full(stage.config.num_clients + 1, -2)
        rows[list(clients)] = np.arange(len(clients))
        rows[-1] = -1
        who = _with_known(stage, tuple(n for _, n in seen), clients, rows[owner])
        return who if host is None else replace(who, host=rows[host])
    merged, hosts = np.minimum(owner, 0), None if host is None else np.zeros_like(host)
    if stage.observer.vantage == "participant":
        curious = stage.observer.participant
        merged = np.where(owner == curious, -2, merged)
        hosts = None if host is None else np.where(host == curious, -2, 0)
    return replace(_with_known(stage, (None,), (0,), merged), host=hosts)


def _with_known(
    stage: Stage,
    nodes: tuple[int | None, ...],
    clients: tuple[int, ...],
    owner: NDArray[np.int64],
) -> Targets:
    """Tell each adversary some members, and held-out records of the same labels.

    The share is rounded up label by label, and one of each label is left to judge: labels say as
    little about who is a member as before.
    """
    share, rng = stage.config.knowledge.known_members, generator(stage.seed, "known members")
    labels = stage.dataset.y[stage.candidates.index]
    held_out = rng.permutation(np.flatnonzero(owner == -1))
    known: list[tuple[Positions, Positions]] = []
    for row in range(len(nodes)):
        members = rng.permutation(np.flatnonzero(owner == row))
        by_label = [members[labels[members] == label] for label in np.unique(labels[members])]
        told = [m[: min(int(np.ceil(share * len(m))), len(m) - 1)] for m in by_label]
        some = np.concatenate([members[:0], *told])
        known.append((some, _alike(held_out, labels, some)))
    judged = owner.copy()
    judged[np.concatenate([np.concatenate(pair) for pair in known])] = -2
    return Targets(nodes, clients, judged, tuple(known))


def _alike(pool: Positions, labels: NDArray[np.int64], like: Positions) -> Positions:
    """Return the first of the pool with the labels of ``like``, at most half of any label."""
    wanted = np.bincount(labels[like], minlength=int(labels.max()) + 1)
    by_label = [pool[labels[pool] == label] for label in range(len(wanted))]
    taken = [own[: min(n, len(own) // 2)] for own, n in zip(by_label, wanted, strict=True)]
    return np.concatenate(taken)


@dataclass
class Measured:
    """One row of the result for each attack and baseline, and the attacks' raw scores.

    ``bounds`` are those of :class:`fedmia.curves.Curves`.
    """

    attacks: list[dict[str, Any]]
    baselines: list[dict[str, Any]]
    scores: dict[str, NDArray[np.float64]]
    seconds: float
    shadow_seconds: float = 0.0
    bounds: list[dict[str, Any]] = field(default_factory=list)


def evaluate(
    stage: Stage,
    view: View,
    who: Targets,
    failure: str | None,
    on_attack: OnAttack = lambda done, total, name: None,
    delta: float = 0.0,
) -> Measured:
    """Attack and measure.

    A vantage that lacks what an attack needs gives a ``not_applicable`` row. Where training
    failed, what the vantage shows is not what was asked for, and every attack is marked failed.
    ``delta`` is that of the claim which the bounds are held against, 0 without one.
    """
    start = time.perf_counter()
    examples = stage.dataset.examples(stage.candidates.index)
    measured = Measured([], [], {}, 0.0)
    knows = adversary.knowledge(
        stage, view, who.known, lambda done, total: on_attack(done, total, "training shadows")
    )
    seen = view.transcript
    shown = seen.shows | knows[0].gives
    asked: dict[str, Collection[int]] = {}
    for done, (name, attack) in enumerate(stage.attacks.items()):
        on_attack(done, len(stage.attacks), name)
        log.info("attack %s", name)
        row: dict[str, Any] = {"name": name, "vantage": seen.vantage}
        measured.attacks.append(row)
        try:
            attack.check_applicable(seen.vantage, shown, seen.hides_updates)
            if failure is not None:
                row |= {"status": "failed", "reason": failure}
                continue
            began, apart = time.perf_counter(), _shared_seconds(view, knows)
            scores, left_out = _scores(attack, view, who, examples, knows)
            spent = time.perf_counter() - began - (_shared_seconds(view, knows) - apart)
            row |= _measure(scores, who.without(left_out), examples, stage)
            row["left_out"] = [
                {"client": who.clients[i], "reason": reason} for i, reason in left_out.items()
            ]
            row |= {"auc_per_round": None, "seconds": max(spent, 0.0)}
            asked[name] = left_out.keys()
            if not left_out:
                measured.scores[name] = scores
        except NotApplicableError as error:
            row |= {"status": "not_applicable", "reason": str(error)}
        except Exception as error:
            log.exception("attack %s failed", name)
            row |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    ask = partial(_scores, who=who, examples=examples, knows=knows)
    _follow(stage, view, who, ask, asked, measured, delta)
    for name, scores in _blind(stage, who, examples).items():
        began = time.perf_counter()
        row = {"name": name, "vantage": "blind"} | _measure(scores, who, examples, stage)
        row |= {"auc_per_round": None, "seconds": time.perf_counter() - began}
        measured.baselines.append(row)
    measured.seconds = time.perf_counter() - start
    measured.shadow_seconds = knows[0].shadows.seconds if knows[0].shadows else 0.0
    return measured


def _scores(
    attack: Attack, view: View, who: Targets, examples: Examples, knows: Sequence[Knowledge]
) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Return the scores of all targets that the attack applies to, and why others are left out."""
    scores, left_out = [], {}
    for row, (node, known) in enumerate(zip(who.nodes, knows, strict=True)):
        try:
            scores.append(attack(view, node, examples, known))
        except NotApplicableError as error:
            left_out[row] = str(error)
    if not scores:
        raise NotApplicableError(left_out[0])
    return np.stack(scores), left_out


def _shared_seconds(view: View, knows: Sequence[Knowledge]) -> float:
    """Return the time spent so far on what all attacks share."""
    shadows = knows[0].shadows
    return view.signals.seconds + (shadows.seconds if shadows else 0.0)


def _measure(
    scores: NDArray[np.float64], who: Targets, examples: Examples, stage: Stage
) -> dict[str, Any]:
    metrics: Membership = stage.metrics
    # the same halves and resamples for every attack: equal rankings have equal figures
    row = metrics.evaluate(scores, who.owner, examples.y, generator(stage.seed, "metrics"))
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


def _follow(
    stage: Stage,
    view: View,
    who: Targets,
    ask: curves.Ask,
    asked: Mapping[str, Collection[int]],
    measured: Measured,
    delta: float,
) -> None:
    """Add to the rows, and to the bounds, what there would have been after earlier rounds."""
    attacks = {name: stage.attacks[name] for name in asked}
    prove = partial(proved.epsilon, stage, owner=who.owner, delta=delta, host=who.host)
    found = curves.follow(
        view, attacks, asked, ask, lambda rows: who.without(rows).owner, prove, measured.scores
    )
    measured.bounds = found.bounds
    for row in measured.attacks:
        if (name := row["name"]) in found.auc:
            row["auc_per_round"] = found.auc[name]
        if name in found.failed:
            row |= {"status": "failed", "reason": found.failed[name]}
            measured.scores.pop(name, None)


def _blind(stage: Stage, who: Targets, examples: Examples) -> dict[str, NDArray[np.float64]]:
    """Return the scores of baselines that never look at training."""
    rng, num_targets = generator(stage.seed, "baselines"), len(who.nodes)
    untrained, _ = forward(stage.model.eval(), tensor(examples.x), tensor(examples.y), _CHUNK)
    if who.host is None:
        prior = audit.label_prior(examples.y, who.owner, num_targets)
    else:
        prior = audit.label_prior_in_turn(examples.y, who.owner, num_targets, rng)
    return {
        "label_prior": prior,
        "raw_features": audit.raw_features(examples.x, examples.y, who.owner, num_targets, rng),
        "untrained_model": audit.untrained(untrained, num_targets),
    }
