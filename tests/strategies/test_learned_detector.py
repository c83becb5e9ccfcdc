"""A detector that clients train together finds what it has not seen; without it, z-scores do."""

from dataclasses import dataclass

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.defenses.anomaly import Anomaly as Mod
from fedmia.arrays import to_params, to_record
from fedmia.grid.serial import Serial
from strategies.anomaly import Anomaly
from strategies.learned_detector import Learning, NotLearnedError, learn, threshold
from tests.strategies.central_rounds import fed_avg, model_of, moved
from tests.strategies.test_anomaly import CLIENTS, SIZE, honest

WARMUP, ROUNDS = 5, 8


def sign_flip(client, number):
    return -honest(client, number) if client == 9 and number > WARMUP else honest(client, number)


@dataclass(frozen=True)
class Federation:
    """Builds the clients' app; those in ``broken`` answer the question with an error."""

    mod: Mod
    update: object = sign_flip
    broken: tuple[int, ...] = ()

    def __call__(self):
        app = ClientApp(mods=[self.mod])

        @app.train()
        def train(message, context):
            client = context.node_config["partition-id"]
            number = message.content["config"]["server-round"]
            after = moved(to_params(message.content["arrays"]), self.update(client, number))
            metrics = MetricRecord({"num-examples": 1})
            content = {"arrays": to_record(after), "metrics": metrics}
            return Message(RecordDict(content), reply_to=message)

        @app.query("anomaly")
        def query(message, context):
            if context.node_config["partition-id"] in self.broken:
                raise RuntimeError("broken")
            return self.mod.handlers["anomaly"](message, context)

        return app


def run(strategy, rounds=ROUNDS, **settings):
    """Return the numbers of the clients by node id."""

    def main(grid):
        strategy.start(grid=grid, initial_arrays=to_record(model_of(SIZE)), num_rounds=rounds)
        return {node: client for client, node in enumerate(sorted(grid.get_node_ids()))}

    return Serial().run(Federation(Mod(), **settings), CLIENTS, 0, main)


def anomaly(**given):
    settings = {
        "detector": "autoencoder",
        "warmup_rounds": WARMUP,
        "isolate": False,
        "detector_rounds": 5,
    }
    settings |= given
    return Anomaly(fed_avg(), ROUNDS, **settings)


@pytest.mark.parametrize("detector", ["autoencoder", "vae"])
def test_clients_train_a_detector_that_finds_the_planted_one(detector):
    strategy = anomaly(detector=detector)
    nodes = sorted(run(strategy))
    found = [(flag.round, nodes.index(flag.node_id)) for flag in strategy.flags]
    assert {(6, 9), (7, 9), (8, 9)} <= set(found)
    assert len(found) <= 3 + 0.15 * 27
    assert strategy.fallbacks == []
    flag = next(flag for flag in strategy.flags if nodes.index(flag.node_id) == 9)
    assert flag.evidence["reconstruction_error"] > 1.5 * flag.evidence["threshold"]
    assert len(flag.evidence) == 5


def test_the_median_of_the_clients_weights_outlasts_some_that_fail():
    strategy = anomaly(detector_rounds=2)
    run(strategy, broken=(0, 1))
    assert strategy.learned is not None
    assert strategy.fallbacks == []


def test_where_nobody_trains_it_robust_z_decides_and_says_so():
    strategy = anomaly()
    nodes = sorted(run(strategy, broken=tuple(range(CLIENTS))))
    reason = "no autoencoder: none of 8 clients trained the detector; robust_z decides"
    assert strategy.fallbacks == [(number, reason) for number in (6, 7, 8)]
    found = [(flag.round, nodes.index(flag.node_id)) for flag in strategy.flags]
    assert {(6, 9), (7, 9), (8, 9)} <= set(found)
    assert "features_beyond" in strategy.flags[0].evidence


def test_two_clients_are_too_few_to_learn_from():
    rows = {1: [np.zeros(3)], 2: [np.zeros(3)]}
    with pytest.raises(NotLearnedError, match="2 clients to learn from: expected at least 3"):
        learn(Learning(), None, rows, {})


def test_the_threshold_is_the_larger_of_two():
    errors = np.array([1.0, 1.0, 1.0, 5.0])  # mean 2, σ √3, median 1, largest 5
    assert threshold(errors, 2.0, 0.5) == pytest.approx(2 + 2 * np.sqrt(3))
    assert threshold(errors, 0.0, 1.0) == 5.0
