import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from fedmia.arrays import to_record
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.wire import RECORD, Told, answer, question, table, told


@pytest.fixture(autouse=True)
def _identity():
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def message(record=None, **content):
    if record is not None:
        content[RECORD] = record
    return Message(RecordDict(content), 7, "train")


def said(**fields):
    return Told(message(told(**fields)))


def test_fields_come_back_as_they_were_told():
    heard = said(n=3, key=b"k", name="x", nodes=[1, 2], none=[], **table("to", "sealed", {5: b"s"}))
    assert (heard.one("n", int), heard.one("key", bytes), heard.one("name", str)) == (3, b"k", "x")
    assert (heard.many("nodes", int), heard.many("none", bytes)) == ([1, 2], [])
    assert heard.table("to", "sealed") == {5: b"s"}


def test_an_answer_says_its_fields_and_nothing_else():
    reply = answer(message(told(secret=b"s"), metrics=MetricRecord({"a": 1.0})), n=3)
    assert list(reply.content) == [RECORD]
    assert dict(reply.content[RECORD]) == {"n": 3}


BAD = {
    "missing": lambda t: t.one("absent", int),
    "another type": lambda t: t.one("key", int),
    "a list for a value": lambda t: t.one("nodes", int),
    "a value for a list": lambda t: t.many("n", int),
    "a list of others": lambda t: t.many("nodes", bytes),
    "no list": lambda t: t.many("absent", int),
    "another length": lambda t: t.table("nodes", "short"),
    "a node twice": lambda t: t.table("twice", "blobs"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_missing_or_of_another_type_is_refused(case):
    heard = said(n=3, key=b"k", nodes=[1, 2], short=[b"a"], twice=[1, 1], blobs=[b"a", b"b"])
    with pytest.raises(ProtocolError, match="expected"):
        BAD[case](heard)


def test_a_message_without_the_record_is_refused():
    with pytest.raises(ProtocolError, match="without the record of the protocol"):
        Told(message())


def asked(value=1.0, lr=0.1, name="w", kind="train", record=None, order=1):
    pair = {name: np.array([value, 2.0]), "b": np.zeros(3, np.int64)}
    content = {
        "arrays": to_record(pair),
        "config": ConfigRecord(dict([("lr", lr), ("server-round", 3)][::order])),
    }
    if record:
        content[RECORD] = record
    return Message(RecordDict(dict([*content.items()][::order])), 7, kind)


def test_a_question_is_the_model_and_every_setting():
    same = question(asked())
    assert len(same) == 32
    others = [asked(1.5), asked(lr=0.0), asked(name="v"), asked(kind="train.other")]
    assert len({same, *map(question, others)}) == 5


def test_a_question_is_the_same_whatever_the_order_and_the_protocols_record():
    assert (
        question(asked(order=-1)) == question(asked(record=told(session=b"s"))) == question(asked())
    )
