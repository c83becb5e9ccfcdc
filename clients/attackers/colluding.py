"""What attackers share that agree on one update: what they know, and the one vector they all send.

They pool their records, so each can work out what any of them would have sent; what they make of
it is the same at each of them, without a message between them.
"""

import copy
from abc import abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from flwr.app import Context, Message, RecordDict
from numpy.typing import NDArray

from clients.attackers.base import Forger, Scene, Vector
from clients.defenses.hiding import Handler
from clients.honest import DroppedOutError
from fedmia.errors import expect
from fedmia.records import Params

COLLUDERS, ALL = "colluders", "all"

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class _Agreed:
    """What was agreed on in answer to a model in a round."""

    run_id: int
    server_round: int
    sent: Params
    update: Vector | None

    def answers(self, scene: Scene) -> bool:
        asked, number = scene.context.run_id, scene.server_round
        same = (self.run_id, self.server_round) == (asked, number)
        return same and all(
            np.array_equal(value, scene.sent[name], equal_nan=value.dtype.kind == "f")
            for name, value in self.sent.items()
        )


@dataclass(frozen=True, kw_only=True)
class Colluding(Forger):
    """Attackers that all send one update, made of honest ones that they know.

    An honest update is trained anew by the attacker, under a fresh state of the client: a defence
    that keeps something between rounds is at its beginning. Attackers in one process share the
    work of a round; in processes of their own each trains all that it knows of, and comes to the
    same bytes.

    Parameters
    ----------
    knowledge
        ``colluders``: what the attackers would have sent if they were honest; at least two of
        them. ``all``: what the honest clients send, which no real attacker sees of all of them;
        the strongest case.
    """

    knowledge: str = COLLUDERS
    _last: list[_Agreed] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(
            self.knowledge in (COLLUDERS, ALL),
            "knowledge",
            self.knowledge,
            f"{COLLUDERS} or {ALL}",
        )
        known, who = self._known(), self.attackers(self.num_clients)
        allowed = f"{ALL}, or at least 2 attackers, whose updates differ; there is {len(who)}"
        expect(not who or len(known) >= 2, "knowledge", self.knowledge, allowed)

    @property
    def omniscient(self) -> bool:
        """Whether the updates of honest clients are known."""
        return self.knowledge == ALL

    @abstractmethod
    def agree(self, updates: Matrix) -> Vector:
        """Return what all of them send, (d,), given m honest updates, (m, d), m at least 2."""

    def attack(self, message: Message, context: Context, call_next: Handler) -> Message:
        """As any forger, with a message of its own for each time that it is answered.

        Mods behind this one may change what they get.
        """

        def train(asked: Message, who: Context) -> Message:
            return call_next(copy.deepcopy(asked), who)

        return super().attack(message, context, train)

    def forge(self, update: Vector, scene: Scene) -> Vector:
        """Return what was agreed on; the attacker's own update where too few are known of."""
        if not (self._last and self._last[0].answers(scene)):
            context, number = scene.context, scene.server_round
            self._last[:] = [_Agreed(context.run_id, number, scene.sent, self._agree(scene))]
        agreed = self._last[0].update
        return update if agreed is None else agreed

    def _agree(self, scene: Scene) -> Vector | None:
        found = [_learn(scene, client) for client in sorted(self._known())]
        updates = [update for update in found if update is not None]
        if len(updates) < 2:
            return None
        with np.errstate(all="ignore"):  # what has diverged is no number any more
            return self.agree(np.stack(updates))

    def _known(self) -> Collection[int]:
        who = self.attackers(self.num_clients)
        return who if self.knowledge == COLLUDERS else {*range(self.num_clients)} - who


def squared_distances(updates: Matrix) -> Matrix:
    """Return the squared distances between m vectors, (m, m), by one product of matrices."""
    # Not by numpy: the number of threads of its BLAS would decide the last bits.
    rows = torch.from_numpy(updates - updates.mean(axis=0))
    products = (rows @ rows.T).numpy()
    squares = np.diag(products)
    between = squares[:, None] + squares[None, :] - 2 * products
    return np.asarray(np.maximum(between, 0.0))


def _learn(scene: Scene, client: int) -> Vector | None:
    """Return what a client would send if it were honest, ``None`` if it is away."""
    there = {**scene.context.node_config, "partition-id": client}
    context = replace(scene.context, node_config=there, state=RecordDict())
    try:
        reply = scene.train(scene.message, context)
    except DroppedOutError:
        return None
    return None if reply.has_error() else scene.change(reply)
