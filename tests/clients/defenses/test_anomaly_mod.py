"""The mod changes nothing that leaves, remembers features across messages, and trains on them."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from clients.defenses.anomaly import Anomaly
from fedmia.arrays import to_params, to_record
from fedmia.detector_messages import answered, asked, question
from fedmia.detectors import untrained
from fedmia.errors import ConfigError
from fedmia.robust_scale import Scale
from strategies.profiles import Profiles

SHAPE = ("autoencoder", 8, 2)


@pytest.fixture(autouse=True)
def _identity():
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def models(count):
    rng = np.random.default_rng(0)
    return [
        {"w": rng.normal(size=(40, 50)).astype(np.float32), "b": rng.normal(size=3)}
        for _ in range(count)
    ]


def ask(params, server_round):
    content = {"arrays": to_record(params), "config": ConfigRecord({"server-round": server_round})}
    return Message(RecordDict(content), 7, "train")


def answers(params):
    def train(message, context):
        content = {"arrays": to_record(params), "metrics": MetricRecord({"num-examples": 3})}
        return Message(RecordDict(content), reply_to=message)

    return train


def context():
    return Context(1, 7, {"partition-id": 4}, RecordDict(), {})


def played(mod, rounds, here=None):
    """Rounds in which model ``t`` is sent and ``t + 10`` comes back."""
    here, sent = here or context(), models(20)
    for number in rounds:
        reply = mod(ask(sent[number], number), here, answers(sent[10 + number]))
        np.testing.assert_array_equal(
            to_params(reply.content["arrays"])["w"], sent[10 + number]["w"]
        )
        assert reply.content["metrics"]["num-examples"] == 3
    return here


def kept(here):
    rounds = here.state.config_records["anomaly-rounds"]["rounds"]
    return rounds, to_params(here.state["anomaly"])["features"]


def test_what_is_remembered_is_what_the_server_computes():
    rounds, features = kept(played(Anomaly(), range(1, 5)))
    server, sent = Profiles(), models(20)
    expected = []
    for number in range(1, 5):
        profile = server.begin(sent[number])
        row = profile.flat(sent[10 + number]) - profile.flat(sent[number])
        expected.append(server.of(7, row))
    assert list(rounds) == [1, 2, 3, 4]
    np.testing.assert_allclose(features, expected, atol=1e-6)
    assert np.isnan(features[0]).sum() == 2
    assert np.abs(features[1:]).min(axis=0).max() > 0.5


def test_the_state_survives_and_keeps_the_latest_updates():
    whole = kept(played(Anomaly(keep=3), range(1, 7)))
    here = played(Anomaly(keep=3), range(1, 4))
    fresh = context()
    for name, record in here.state.items():
        fresh.state[name] = record
    parts = kept(played(Anomaly(keep=3), range(4, 7), fresh))
    assert list(whole[0]) == list(parts[0]) == [4, 5, 6]
    np.testing.assert_array_equal(whole[1], parts[1])


def scales(features):
    return {number: Scale.of(features[:1] * 0, 1.0) for number in (2, 3)}


def test_the_answer_is_a_detector_trained_on_the_rounds_that_are_asked_about():
    mod = Anomaly(steps=50)
    here = played(mod, range(1, 5))
    _, features = kept(here)
    detector = untrained("autoencoder", features.shape[1], 8, 2, seed=3)
    reply = mod.handlers["anomaly"](question(7, detector, SHAPE, scales(features), 0), here)
    after = untrained("autoencoder", features.shape[1], 8, 2, seed=0)
    after.load(answered(reply))
    own, before = features[1:3], detector.errors(features[1:3])
    assert (after.errors(own) < 0.7 * before).all()


def test_without_an_update_of_these_rounds_there_is_no_answer():
    here = played(Anomaly(), [5, 6])
    detector = untrained("autoencoder", kept(here)[1].shape[1], 8, 2, seed=0)
    with pytest.raises(RuntimeError, match="no update of these rounds"):
        Anomaly().handlers["anomaly"](question(7, detector, SHAPE, scales(kept(here)[1]), 0), here)


def test_a_question_arrives_as_it_was_asked():
    detector = untrained("vae", 5, 4, 2, seed=1)
    given = {3: Scale(np.arange(5.0), np.ones(5)), 2: Scale(np.ones(5), np.full(5, 2.0))}
    found = asked(question(7, detector, ("vae", 4, 2), given, 6))
    assert (sorted(found.scales), found.step) == ([2, 3], 6)
    np.testing.assert_array_equal(found.scales[3].centre, np.arange(5.0))
    np.testing.assert_array_equal(found.scales[2].spread, 2.0)
    for name, value in detector.params().items():
        np.testing.assert_array_equal(found.detector.params()[name], value)


def test_an_update_that_is_not_finite_passes_and_is_not_remembered():
    here, sent = played(Anomaly(), [1]), models(20)
    bad = {**sent[3], "b": np.full(3, np.nan)}
    reply = Anomaly()(ask(sent[2], 2), here, answers(bad))
    assert np.isnan(to_params(reply.content["arrays"])["b"]).all()
    assert list(kept(here)[0]) == [1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"keep": 0}, "keep=0: expected at least 1"),
        ({"steps": 0}, "steps=0: expected at least 1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: expected more than 0 and finite"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        Anomaly(**settings)
