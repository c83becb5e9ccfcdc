"""A client encrypts its update, and decrypts one sum of the round that it took part in."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from clients.defenses.homomorphic import Homomorphic
from fedmia.arrays import decode, to_record
from fedmia.records import MASKED, WORDS
from fedmia.secagg.cohort import Cohort
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.shared_key import SharedKey, name_of
from fedmia.secagg.wire import DECRYPT, RECORD, told

KEYS = SharedKey()
MOD = Homomorphic(Cohort(4), KEYS)
MODEL = {"w": np.zeros(3, np.float32)}


@pytest.fixture(autouse=True)
def _identity():
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def ask(server_round=1, session=b"one", stated=None):
    config = ConfigRecord({"server-round": server_round if stated is None else stated})
    content = RecordDict({"arrays": to_record(MODEL), "config": config})
    content[RECORD] = told(session=session, round=server_round)
    return Message(content, 7, "train")


def ask_to_decrypt(ciphertext, session=b"one"):
    record = told(session=session, ciphertext=ciphertext)
    return Message(RecordDict({RECORD: record}), 7, f"query.{DECRYPT}")


def fresh():
    return Context(1, 7, {"partition-id": 0}, RecordDict(), {})


def trained(message, context):
    metrics = MetricRecord({"num-examples": 2, "train-loss": 50.0})
    after = {"w": np.array([1, -1, 0], np.float32)}
    return Message(RecordDict({"arrays": to_record(after), "metrics": metrics}), reply_to=message)


def encrypted(reply):
    return decode(reply.content[MASKED][WORDS]).tobytes()


def test_weights_and_metrics_are_in_the_ciphertext_and_nowhere_else():
    context = fresh()
    reply = MOD(ask(), context, trained)

    assert dict(reply.content["metrics"]) == {}
    assert dict(reply.content[RECORD]) == {"metrics": ["train-loss"], "key": name_of(KEYS.of({}))}
    words = MOD.handlers[DECRYPT](ask_to_decrypt(encrypted(reply)), context).content[RECORD]["sum"]
    values = np.frombuffer(words, np.int32)
    assert values[:6].tolist() == [2 * 32767, -2 * 32767, 0, 2 * 16384, 2, 0]


def test_a_client_decrypts_once_a_round():
    context = fresh()
    ciphertext = encrypted(MOD(ask(), context, trained))
    MOD.handlers[DECRYPT](ask_to_decrypt(ciphertext), context)

    with pytest.raises(ProtocolError, match="a second one of this"):
        MOD.handlers[DECRYPT](ask_to_decrypt(ciphertext), context)
    with pytest.raises(ProtocolError, match="a second one of this"):
        MOD.handlers[DECRYPT](ask_to_decrypt(ciphertext, b""), context)


def test_a_client_decrypts_only_for_the_execution_it_took_part_in():
    context = fresh()
    ciphertext = encrypted(MOD(ask(), context, trained))

    for there, session in ((context, b"two"), (fresh(), b"one")):
        with pytest.raises(ProtocolError, match="a sum of another round"):
            MOD.handlers[DECRYPT](ask_to_decrypt(ciphertext, session), there)


@pytest.mark.parametrize("again", [0, 1])
def test_a_replayed_round_is_refused_before_training(again):
    context = fresh()
    MOD(ask(1), context, trained)

    with pytest.raises(ProtocolError, match=f"round {again}: expected a later one than 1"):
        MOD(ask(again), context, None)


def test_settings_of_another_round_are_refused_before_training_and_do_not_count():
    context = fresh()
    with pytest.raises(ProtocolError, match="server-round: expected 2, the round of the protocol"):
        MOD(ask(2, stated=1), context, None)
    MOD(ask(1), context, trained)


@pytest.mark.parametrize("kind", ["query.partition", f"query.{DECRYPT}"])
def test_queries_of_the_protocol_pass_unchanged(kind):
    question = Message(RecordDict(), 7, kind)

    assert MOD(question, fresh(), lambda message, context: message) is question
