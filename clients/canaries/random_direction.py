"""Canary clients that send a random direction in place of a trained model.

G. Andrew, P. Kairouz, S. Oh, A. Oprea, H. B. McMahan, V. Suriyakumar, One-shot Empirical Privacy
Estimation for Federated Learning, ICLR 2024 (arXiv 2302.03098), Algorithm 1. What training shows
of the directions is measured by :mod:`fedmia.canaries.watch`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedmia.arrays import to_params, to_record
from fedmia.errors import expect
from fedmia.records import Params
from fedmia.seeding import generator

Floats = NDArray[np.float32]

_FEWEST = 8  # that a normal law can be fitted to and tested for
_OTHERS = 2  # clients with records


def direction(seed: int, j: int, dimension: int) -> Floats:
    """Return ``c_j``, uniform on the unit sphere: float32, shape (dimension,)."""
    draws = generator(seed, "canary", j).standard_normal(dimension, dtype=np.float32)
    return draws / np.float32(np.linalg.norm(draws.astype(np.float64)))


@dataclass(frozen=True)
class RandomDirection:
    """The last ``count`` clients answer each ``train`` message by ``w^t + norm·c_j``.

    To be the innermost mod: clipping, noise and masks of the others fall on it as on any client's
    update. A canary holds no records, never drops out of its own account, and otherwise answers
    with the fields of an honest client's reply.

    Parameters
    ----------
    count
        k, at least 8 and at most ``num_clients - 2``.
    norm
        L2 norm of the update, more than 0: the clipping norm, where there is one.
    num_examples
        What each reports and is weighted by; ``None`` for 1.
    num_clients
        All clients of the federation, canaries among them.
    seed
        Of the directions.
    """

    count: int = 20
    norm: float = 1.0
    num_examples: int | None = None
    num_clients: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        most = self.num_clients - _OTHERS
        allowed = f"at least {_FEWEST} and at most {most}"
        if most < _FEWEST:
            allowed = f"num_clients of at least {_FEWEST + _OTHERS}, canaries among them"
        else:
            allowed += f" (num_clients={self.num_clients} less {_OTHERS})"
        expect(_FEWEST <= self.count <= most, "count", self.count, allowed)
        expect(0 < self.norm < np.inf, "norm", self.norm, "more than 0 and finite")
        examples = self.num_examples
        expect(examples is None or examples >= 1, "num_examples", examples, "null or at least 1")

    @property
    def weight(self) -> int:
        """The number of examples that each canary reports."""
        return 1 if self.num_examples is None else self.num_examples

    def directions(self, dimension: int, unsent: bool = False) -> Floats:
        """Return the canaries' directions, or as many that nobody sends: (count, dimension)."""
        first = self.count if unsent else 0
        rows = range(first, first + self.count)
        return np.stack([direction(self.seed, j, dimension) for j in rows])

    def __call__(
        self, message: Message, context: Context, call_next: Callable[[Message, Context], Message]
    ) -> Message:
        """Answer for a canary's node; pass on what others are asked, and all queries."""
        j = int(context.node_config["partition-id"]) - (self.num_clients - self.count)
        category = message.metadata.message_type.split(".")[0]
        if j < 0 or category not in ("train", "evaluate"):
            return call_next(message, context)
        if category == "evaluate":
            # weighted by its number of examples: it changes no average
            metrics = MetricRecord({"num-examples": 0, "accuracy": 0.0})
            return Message(RecordDict({"metrics": metrics}), reply_to=message)
        ((name, sent),) = message.content.array_records.items()
        arrays = self._moved(to_params(sent), j)
        metrics = MetricRecord({"num-examples": self.weight, "train-loss": 0.0})
        return Message(RecordDict({name: arrays, "metrics": metrics}), reply_to=message)

    def _moved(self, params: Params, j: int) -> ArrayRecord:
        """Return the model after a step of length ``norm`` along ``c_j``, floating arrays alone."""
        floating = [name for name, value in params.items() if value.dtype.kind == "f"]
        sizes = [params[name].size for name in floating]
        step = np.float32(self.norm) * direction(self.seed, j, sum(sizes))
        parts = dict(zip(floating, np.split(step, np.cumsum(sizes)[:-1]), strict=True))
        return to_record({
            name: (value + parts[name].reshape(value.shape)).astype(value.dtype)
            if name in parts
            else value
            for name, value in params.items()
        })  # fmt: skip
