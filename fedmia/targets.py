"""Who is asked about, and the truth: the rows of scores and the owners of candidates."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedmia.knowledge import Positions, View
from fedmia.seeding import generator
from fedmia.stage import Stage


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
    return targets_among(stage, nodes, view.transcript.node_ids or nodes)


def targets_among(
    stage: Stage, nodes: Mapping[int, int], seen_of: Collection[int] | None = None
) -> Targets:
    """Return the targets, no canary clients, among all nodes (id → client) if all were seen.

    ``seen_of`` are those whose updates were seen, if not all were. Where sums of groups are shown a
    group is one target: all that its clients hold are members, and it has the number of the first.
    """
    owner, host = stage.candidates.owner, stage.candidates.host
    if stage.vantage.per_client:
        held = {
            n: sorted(nodes[m] for m in group if nodes[m] < stage.holders)
            for n, group in stage.groups(nodes).items()
            if seen_of is None or n in seen_of
        }
        seen = sorted((clients[0], n) for n, clients in held.items() if clients)
        clients = tuple(client for client, _ in seen)
        rows = np.full(stage.config.num_clients + 1, -2)
        for row, (_, n) in enumerate(seen):
            rows[held[n]] = row
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
