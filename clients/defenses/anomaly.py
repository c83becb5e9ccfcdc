"""Anomaly detection, the client's side: it trains the detector on features of its own updates.

S. Li, Y. Cheng, W. Wang, Y. Liu, T. Chen, "Learning to Detect Malicious Clients for Robust
Federated Learning", 2020 (arXiv 2002.00211), with the detector trained where the updates come from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message

from clients.defenses.hiding import Handler, one_model
from clients.defenses.updates import round_of
from fedmia.arrays import to_params, to_record
from fedmia.detector_messages import ACTION, answer, asked
from fedmia.detectors import fit
from fedmia.errors import expect
from fedmia.records import Params
from fedmia.seeding import generator
from fedmia.update_features import Profile

_STATE, _ROUNDS = "anomaly", "anomaly-rounds"


@dataclass(frozen=True)
class Anomaly:
    """Keeps the features of the updates that leave, and trains a detector on them when asked.

    An update passes as it is. To be the outermost mod, so that what it learns from is what the
    server sees; then the detector's weights tell nothing that the updates did not. What is kept is
    in ``context.state``: the features of ``keep`` updates, and three sketches of a few thousand
    numbers (:class:`fedmia.update_features.Profile`).

    Parameters
    ----------
    keep
        Updates of which the features are kept, the latest ones.
    steps, learning_rate
        Of Adam, each time the client is asked.
    seed
        Of the sampling in a variational detector.
    """

    keep: int = 10
    steps: int = 20
    learning_rate: float = 0.01
    seed: int = 0

    needs_strategy: ClassVar = "anomaly"

    def __post_init__(self) -> None:
        expect(self.keep >= 1, "keep", self.keep, "at least 1")
        expect(self.steps >= 1, "steps", self.steps, "at least 1")
        rate = self.learning_rate
        expect(0 < rate < np.inf, "learning_rate", rate, "more than 0 and finite")

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """What answers the question to train, by action."""
        return {ACTION: self._train}

    def __call__(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Pass every answer on; of one to a ``train`` message, remember the features."""
        if message.metadata.message_type.split(".")[0] != "train":
            return call_next(message, context)
        sent, server_round = one_model(message), round_of(message)
        reply = call_next(message, context)
        if not reply.has_error():
            self._remember(context, sent, one_model(reply), server_round)
        return reply

    def _remember(self, context: Context, before: Params, after: Params, server_round: int) -> None:
        profile = Profile(before)
        model = profile.flat(before)
        row = profile.flat(after) - model
        if not np.isfinite(row).all():
            return
        known, numbers = _recall(context)
        seen, sketch = profile.sketch(model), profile.sketch(row)
        aggregate = known.get("aggregate", np.zeros_like(seen))
        if "model" in known and (change := seen - known["model"]).any():
            aggregate = change
        found = profile(row, sketch, aggregate, known.get("update"))
        rows = [*known.get("features", ()), found][-self.keep :]
        kept = {"features": np.stack(rows), "model": seen, "update": sketch, "aggregate": aggregate}
        context.state[_STATE] = to_record(kept)
        context.state[_ROUNDS] = ConfigRecord({"rounds": [*numbers, server_round][-self.keep :]})

    def _train(self, message: Message, context: Context) -> Message:
        question = asked(message)
        known, numbers = _recall(context)
        kept = dict(zip(numbers, known.get("features", ()), strict=True))
        rows = [scale.z(kept[n]) for n, scale in question.scales.items() if n in kept]
        if not rows:
            raise RuntimeError("no update of these rounds to train the detector on")
        client = int(context.node_config["partition-id"])
        rng = generator(self.seed, "anomaly detector", client, question.step)
        fit(question.detector, np.stack(rows), self.steps, self.learning_rate, rng)
        return answer(message, question.detector)


def _recall(context: Context) -> tuple[Params, list[int]]:
    """Return the arrays that are kept and the rounds of the features, empty at first."""
    arrays, record = context.state.get(_STATE), context.state.get(_ROUNDS)
    if not isinstance(arrays, ArrayRecord) or not isinstance(record, ConfigRecord):
        return {}, []
    rounds = record["rounds"]
    assert isinstance(rounds, list)
    return to_params(arrays), [int(number) for number in rounds]
