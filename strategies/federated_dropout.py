"""Federated dropout: each client trains some of the hidden units, and is averaged over those alone.

S. Caldas, J. Konečný, H. B. McMahan, A. Talwalkar, "Expanding the Reach of Federated Learning by
Reducing Client Resource Requirements", 2018, arXiv 1812.07210: a fixed share of each layer's units
is kept, drawn anew for every client and round.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from torch import nn

from fedmia.arrays import to_params
from fedmia.errors import expect
from fedmia.records import Params
from fedmia.seeding import generator
from fedmia.submodel import check_stack, drawn_mask
from strategies.robust import Robust
from strategies.updates import Updates

RECORD = "federated-dropout"
"""The config record that tells a client its sub-model: ``seed`` and ``keep``."""


class FederatedDropout(Robust):
    """Move each coordinate by the mean of the clients whose sub-model has it.

    ``Σ_k n_k m_k Δ_k / Σ_k n_k m_k`` with the numbers of examples n_k and masks m_k in {0, 1}; a
    coordinate that nobody has stays. With ``keep`` 1 that is federated averaging. A client derives
    its mask from a seed that comes with the model, and so does the server: no index is sent.

    One pass over the updates; no state but the seeds of a round.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates.
    keep
        Share of each hidden layer's units in a sub-model, in (0, 1].
    seed
        Of the sub-models.
    """

    needs_mod: ClassVar[str] = "federated_dropout"

    def __init__(self, inner: Strategy, keep: float = 0.75, seed: int = 0) -> None:
        super().__init__(inner)
        expect(0 < keep <= 1, "keep", keep, "in (0, 1]")
        self.keep, self.seed = keep, seed
        self._model: Params = {}
        self._seeds: dict[int, int] = {}

    def check_model(self, module: nn.Module) -> None:
        """Refuse a model whose hidden units cannot be found."""
        check_stack(module)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as the wrapped strategy does, and tell each client its sub-model."""
        messages = list(super().configure_train(server_round, arrays, config, grid))
        if messages:
            (record,) = messages[0].content.array_records.values()
            self._model = to_params(record)
        self._seeds = {}
        for place, node in enumerate(sorted(m.metadata.dst_node_id for m in messages)):
            rng = generator(self.seed, RECORD, server_round, place)
            self._seeds[node] = int(rng.integers(2**62))
        for message in messages:
            seed = self._seeds[message.metadata.dst_node_id]
            told = ConfigRecord({"seed": seed, "keep": self.keep})
            message.content = RecordDict({**message.content, RECORD: told})
        return messages

    def combine(self, updates: Updates) -> NDArray[np.floating[Any]]:
        """Return the mean by coordinate, (d,); 0 where no client had it."""
        total = np.zeros(updates.matrix.shape[1])
        weight = np.zeros_like(total)
        for node, count, row in zip(updates.nodes, updates.examples, updates.matrix, strict=True):
            rng = np.random.default_rng(self._seeds[node])
            mask = drawn_mask(self._model, self.keep, rng).values()
            own = np.concatenate([m.reshape(-1) for m in mask])
            np.add(total, row * float(count), out=total, where=own)
            np.add(weight, float(count), out=weight, where=own)
        return np.divide(total, weight, out=total, where=weight > 0)
