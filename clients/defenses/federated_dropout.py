"""Federated dropout at the client: trains the sub-model that the server has drawn for it.

S. Caldas, J. Konečný, H. B. McMahan, A. Talwalkar, "Expanding the Reach of Federated Learning by
Reducing Client Resource Requirements", 2018, arXiv 1812.07210.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from flwr.app import Context, Message

from clients.defenses.compression import Update, replaced
from clients.defenses.hiding import Handler, one_model
from fedmia.arrays import to_record
from fedmia.errors import expect
from fedmia.records import Params
from fedmia.signals.lenses import Lens, Transmitted
from fedmia.submodel import Mask, drawn_mask, only

RECORD = "federated-dropout"
"""The config record in which the strategy tells ``seed`` and ``keep``."""


@dataclass(frozen=True)
class FederatedDropout:
    """Trains and sends some hidden units only, those that ``strategy=federated_dropout`` names.

    The others' weights are 0 while the client trains, which is what the smaller network computes,
    and are those that were sent in what the decoder gives. Bytes are those of the coordinates in
    the sub-model: which they are follows from the seed.

    Parameters
    ----------
    keep
        Share of each hidden layer's units, the strategy's.

    Raises
    ------
    ConfigError
        If it is not in (0, 1].
    """

    keep: float = 0.75
    needs_strategy: ClassVar[str] = "federated_dropout"
    shares: ClassVar = ("keep",)
    lens: ClassVar[Lens] = Transmitted()

    def __post_init__(self) -> None:
        expect(0 < self.keep <= 1, "keep", self.keep, "in (0, 1]")

    def perturbed(self, update: Update, rng: np.random.Generator) -> Update:
        """Return an update of the whole model without the units of a random sub-model's rest.

        That stands in for an update of the sub-model, which would be another one.
        """
        return {k: v.astype(np.float32) for k, v in only(update, self._mask(update, rng)).items()}

    def __call__(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Answer ``train`` with a trained sub-model; pass on what is no ``train``.

        Raises
        ------
        ValueError
            If the message names no sub-model, or one of another size.
        """
        if message.metadata.message_type.split(".")[0] != "train":
            return call_next(message, context)
        mask = self._told(message)

        def train(message: Message, context: Context) -> Message:
            ((name, whole),) = message.content.array_records.items()
            message.content[name] = to_record(only(one_model(message), mask))
            try:
                return call_next(message, context)
            finally:
                message.content[name] = whole

        def change(update: Update) -> tuple[Update, int]:
            kept = {name: np.where(mask[name], u, u.dtype.type(0)) for name, u in update.items()}
            return kept, sum(int(mask[k].sum()) * u.itemsize for k, u in update.items())

        return replaced(message, context, train, change)

    def _told(self, message: Message) -> Mask:
        told = message.content.config_records.get(RECORD)
        keep, seed = (told.get("keep"), told.get("seed")) if told else (None, None)
        if keep != self.keep or not isinstance(seed, int):
            raise ValueError(f"{RECORD}: expected keep={self.keep} and a seed, got keep={keep!r}")
        return self._mask(one_model(message), np.random.default_rng(seed))

    def _mask(self, params: Params, rng: np.random.Generator) -> Mask:
        return drawn_mask(params, self.keep, rng)
