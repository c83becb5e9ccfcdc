import os
import pickle
import signal
from dataclasses import dataclass

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from grid_apps import Adding, Unbuildable

from fedmia.errors import ConfigError
from fedmia.grid.actors import _Chunk, _Job
from fedmia.grid.base import LocalGrid, own_copy
from fedmia.grid.flower import Flower
from fedmia.grid.ray import Ray
from fedmia.grid.serial import Serial

NUM_CLIENTS = 5


def wave(grid: Grid, server_round: int = 1) -> list[Message]:
    """One message a node, all with the same content object, as Flower's strategies do it."""
    content = RecordDict(
        {
            "arrays": ArrayRecord({"w": Array(np.arange(3.0))}),
            "config": ConfigRecord({"server-round": server_round}),
        }
    )
    return [Message(content, node_id, "train") for node_id in grid.get_node_ids()]


def rounds(grid: Grid, num_rounds: int = 3) -> list[list[Message]]:
    return [list(grid.send_and_receive(wave(grid, r))) for r in range(1, num_rounds + 1)]


def run(pool, app=None, main=rounds):
    return pool.run(app or Adding(), NUM_CLIENTS, 7, main)


def told(replies: list[Message]) -> list[object]:
    """What each reply says, as plain values: error text, or numbers."""
    return [
        r.error.reason
        if r.has_error()
        else (r.content["arrays"]["w"].numpy().tolist(), r.content["metrics"]["count"])
        for r in replies
    ]


FAILING = 6
UNKNOWN_NODE = 12345


@dataclass(frozen=True)
class Seen:
    """What one federation showed of everything that a grid is asked for."""

    history: list[list[Message]]
    asked: list[Message]
    answered: list[Message]
    pulled: list[int]
    failing: list[Message]
    refusal: str

    @property
    def replies(self) -> list[Message]:
        return [r for wave in (*self.history, self.answered, self.failing) for r in wave]


def ask_everything(grid: Grid) -> Seen:
    history = rounds(grid)
    asked = wave(grid, 4)[::-1]
    answered = list(grid.send_and_receive(asked))
    ids = list(grid.push_messages(wave(grid, 5)))
    pulled = [len(list(grid.pull_messages(i))) for i in (ids[:2], ids[2:], ids)]
    failing = list(grid.send_and_receive(wave(grid, FAILING)))
    with pytest.raises(ValueError, match="node") as caught:
        grid.push_messages([Message(RecordDict(), UNKNOWN_NODE, "train")])
    return Seen(history, asked, answered, pulled, failing, str(caught.value))


@pytest.fixture(scope="module")
def serial() -> Seen:
    return run(Serial(), Adding({FAILING: (3, "raise")}), ask_everything)


@pytest.fixture(scope="module")
def ray(ray_session) -> Seen:
    return run(Ray(num_actors=2), Adding({FAILING: (3, "raise")}), ask_everything)


@pytest.fixture(params=["serial", pytest.param("ray", marks=pytest.mark.slow)])
def seen(request) -> Seen:
    return request.getfixturevalue(request.param)


def test_every_client_answers_and_keeps_its_state(seen):
    for number, replies in enumerate(seen.history, start=1):
        values = sorted(told(replies))
        assert values == [([1.0 + k, 2.0 + k, 3.0 + k], number) for k in range(NUM_CLIENTS)]


def test_replies_come_in_the_order_of_the_messages_and_refer_to_them(seen):
    for message, reply in zip(seen.asked, seen.answered, strict=True):
        assert reply.metadata.reply_to_message_id == message.metadata.message_id
        assert reply.metadata.src_node_id == message.metadata.dst_node_id
    assert len({r.metadata.message_id for r in seen.answered}) == NUM_CLIENTS


def test_pull_gives_each_reply_once(seen):
    assert seen.pulled == [2, 3, 0]


def test_a_client_that_raises_becomes_an_error_reply_that_names_it_and_the_round(seen):
    errors = [r.error.reason for r in seen.failing if r.has_error()]
    assert errors == [f"client 3, round {FAILING}: ZeroDivisionError: on purpose"]
    assert sum(not r.has_error() for r in seen.failing) == NUM_CLIENTS - 1


def test_a_message_to_an_unknown_node_is_refused(seen):
    assert f"Unknown node {UNKNOWN_NODE}" in seen.refusal


@pytest.mark.slow
def test_both_pools_answer_alike(serial, ray):
    assert told(serial.replies) == told(ray.replies)
    nodes = [[r.metadata.src_node_id for r in seen.replies] for seen in (serial, ray)]
    assert nodes[0] == nodes[1]


def test_serial_can_raise_what_the_client_raised():
    with pytest.raises(ZeroDivisionError) as caught:
        run(Serial(fail_fast=True), Adding({1: (3, "raise")}))
    assert caught.value.__notes__ == ["client 3, round 1"]


@pytest.mark.slow
class TestProcessesThatDie:
    """Client 2's in round 1, every one between rounds 1 and 2, client 1's whenever in round 4."""

    @pytest.fixture(scope="class")
    def flag(self, tmp_path_factory):
        return tmp_path_factory.mktemp("flag") / "died"

    @pytest.fixture(scope="class")
    def history(self, ray_session, flag):
        def main(grid):
            first = list(grid.send_and_receive(wave(grid, 1)))
            for pid in grid.pids():
                os.kill(pid, signal.SIGKILL)
            return [first, *(list(grid.send_and_receive(wave(grid, r))) for r in (2, 3, 4))]

        app = Adding({1: (2, "die once"), 4: (1, "die always")}, str(flag))
        return run(Ray(num_actors=2), app, main)

    def test_in_a_round_are_replaced_and_the_result_is_unchanged(self, history, flag, serial):
        assert flag.exists()
        assert told(history[0]) == told(serial.history[0])

    def test_between_rounds_lose_no_clients_state(self, history, serial):
        assert [told(r) for r in history[1:3]] == [told(r) for r in serial.history[1:3]]

    def test_with_every_try_cost_one_client_and_the_others_go_on(self, history):
        values = told(history[3])
        assert values.count("client 1: its process died 2 times on this message") == 1
        others = sorted(v for v in values if not isinstance(v, str))
        numbers = [k for k in range(NUM_CLIENTS) if k != 1]
        assert others == [([1.0 + k, 2.0 + k, 3.0 + k], 4) for k in numbers]


@pytest.mark.slow
class TestAClientThatHangs:
    """In rounds 1 and 2 beyond the time of a client, in round 3 beyond that of the wave."""

    @pytest.fixture(scope="class")
    def history(self, ray_session):
        def main(grid):
            return [*rounds(grid, 2), list(grid.send_and_receive(wave(grid, 3), timeout=2.0))]

        app = Adding(dict.fromkeys((1, 2, 3), (1, "hang")))
        return run(Ray(num_actors=2, timeout_s=5.0), app, main)

    def test_becomes_an_error_reply_and_the_others_go_on(self, history):
        for number, replies in enumerate(history[:2], start=1):
            values = told(replies)
            assert values.count("client 1: exceeded pool.timeout_s=5.0") == 1
            assert sum(v[1] == number for v in values if not isinstance(v, str)) == NUM_CLIENTS - 1

    def test_does_not_outlast_the_time_of_the_whole_wave(self, history):
        assert len(history[2]) == NUM_CLIENTS
        assert "client 1: no answer within the time of the round" in told(history[2])


@pytest.mark.slow
def test_an_app_that_cannot_be_built_says_why(ray_session):
    with pytest.raises(Exception, match="no data on this machine"):
        run(Ray(num_actors=1), Unbuildable())


@pytest.mark.slow
def test_more_actors_than_there_is_room_for_are_refused(ray_session):
    with pytest.raises(ConfigError, match=r"pool\.num_cpus=1000.*expected room for 1 actor"):
        run(Ray(num_cpus=1000))


def test_content_shared_by_messages_travels_once_in_a_call():
    content = RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(100_000))})})
    grid = _Nodes(4, 0)
    jobs = [_Job(i, Message(content, n, "train"), i) for i, n in enumerate(grid.get_node_ids())]
    assert len(pickle.dumps(_Chunk(jobs), protocol=5)) < 1.1 * len(pickle.dumps(content))


def test_a_copy_shares_arrays_and_nothing_else():
    grid = _Nodes(1, 0)
    (message,) = wave(grid)
    copy = own_copy(message)
    assert copy.content["arrays"]["w"] is message.content["arrays"]["w"]
    copy.content["config"]["server-round"] = 99
    del copy.content["arrays"]["w"]
    assert message.content["config"]["server-round"] == 1
    assert "w" in message.content["arrays"]


def test_node_ids_are_drawn_from_the_seed_and_hide_the_clients_number():
    assert _Nodes(9, 1).get_node_ids() == _Nodes(9, 1).get_node_ids()
    assert _Nodes(9, 1).get_node_ids() != _Nodes(9, 2).get_node_ids()
    numbers = [_Nodes(9, 1)._partitions[n] for n in _Nodes(9, 1).get_node_ids()]
    assert sorted(numbers) == list(range(9))
    assert numbers != sorted(numbers)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_cpus": 0}, "num_cpus=0: expected more than 0"),
        ({"num_gpus": -1}, "num_gpus=-1: expected at least 0"),
        ({"num_actors": 0}, "num_actors=0: expected null or at least 1"),
        ({"timeout_s": 0}, "timeout_s=0: expected null or more than 0"),
    ],
)
def test_bad_settings_are_named(arguments, text):
    with pytest.raises(ConfigError, match=text):
        Ray(**arguments)


def test_flowers_simulation_refuses_a_time_limit():
    with pytest.raises(ConfigError, match="timeout_s=3: expected null"):
        Flower(timeout_s=3)


@pytest.mark.slow
def test_an_existing_cluster_is_joined_and_left_up(ray_session, serial):
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        history = run(Ray(address=cluster.address, num_actors=2))
        assert [told(r) for r in history] == [told(r) for r in serial.history]
        assert ray.get_runtime_context().gcs_address == cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
class TestFlowersOwnSimulation:
    @pytest.fixture(scope="class")
    def ended(self):
        """What the clients answered in two rounds, and what came of an error after them."""
        history = []

        def main(grid):
            while len(list(grid.get_node_ids())) < NUM_CLIENTS:
                pass
            history.extend(rounds(grid, 2))
            raise KeyError("from the server")

        with pytest.raises(KeyError) as caught:
            run(Flower(), main=main)
        return history, caught.value

    def test_gives_the_same_answers(self, ended, serial):
        answers = [sorted(map(str, told(replies))) for replies in ended[0]]
        assert answers == [sorted(map(str, told(replies))) for replies in serial.history[:2]]

    def test_raises_what_main_raises(self, ended):
        assert ended[1].args == ("from the server",)


class _Nodes(LocalGrid):
    def execute(self, wave, timeout):
        raise NotImplementedError
