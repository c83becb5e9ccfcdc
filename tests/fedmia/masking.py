"""Secure aggregation as the observer meets it, in a few lines and without any secrecy.

Masks of neighbours in a ring cancel in the sum. Everybody could compute them: what is tested is
what a transcript holds, not whether it could be broken.
"""

from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from clients.honest import Honest
from fedmia.arrays import decode, to_params, to_record
from fedmia.records import MASKED, WORDS

SCALE = 2**20
CLIENTS = 4


def ring(server_round, client, size):
    own, following = (
        np.random.default_rng([server_round, k % CLIENTS]).integers(2**32, size=size)
        for k in (client, client + 1)
    )
    return (own - following).astype(np.uint32)


@dataclass(frozen=True)
class Masking(Honest):
    """Sends its model in fixed point, under a mask."""

    def train(self, message, context, site):
        reply = super().train(message, context, site)
        server_round = next(iter(message.content.config_records.values()))["server-round"]
        (arrays,) = reply.content.array_records.values()
        flat = np.concatenate([v.ravel() for v in to_params(arrays).values()])
        words = np.round(flat * SCALE).astype(np.int64).astype(np.uint32)
        words += ring(server_round, site.partition_id, len(words))
        content = RecordDict({MASKED: to_record({WORDS: words}), "metrics": MetricRecord()})
        return Message(content, reply_to=message)


class MaskedAvg(FedAvg):
    """Averages what it cannot read."""

    hides_updates = "toy_masks"

    def configure_train(self, server_round, arrays, config, grid):
        self.before = to_params(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        words = [decode(r.content[MASKED][WORDS]) for r in replies]
        assert len(words) == CLIENTS
        mean = sum(words).astype(np.int32) / SCALE / CLIENTS
        after, start = {}, 0
        for name, value in self.before.items():
            piece = mean[start : start + value.size]
            after[name] = piece.reshape(value.shape).astype(value.dtype)
            start += value.size
        arrays: ArrayRecord = to_record(after)
        return arrays, MetricRecord()
