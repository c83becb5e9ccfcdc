import pickle

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


@pytest.fixture(params=["serial", "ray"])
def pool(request):
    if request.param == "ray":
        request.getfixturevalue("ray_session")
        return Ray(num_actors=2)
    return Serial()


def test_every_client_answers_and_keeps_its_state(pool):
    history = run(pool)
    for number, replies in enumerate(history, start=1):
        values = sorted(told(replies))
        assert values == [([1.0 + k, 2.0 + k, 3.0 + k], number) for k in range(NUM_CLIENTS)]


def test_replies_come_in_the_order_of_the_messages_and_refer_to_them(pool):
    def main(grid):
        messages = wave(grid)[::-1]
        return messages, grid.send_and_receive(messages)

    messages, replies = run(pool, main=main)
    for message, reply in zip(messages, replies, strict=True):
        assert reply.metadata.reply_to_message_id == message.metadata.message_id
        assert reply.metadata.src_node_id == message.metadata.dst_node_id
    assert len({r.metadata.message_id for r in replies}) == NUM_CLIENTS


def test_pull_gives_each_reply_once(pool):
    def main(grid):
        ids = list(grid.push_messages(wave(grid)))
        return [len(list(grid.pull_messages(i))) for i in (ids[:2], ids[2:], ids)]

    assert run(pool, main=main) == [2, 3, 0]


def test_both_pools_answer_alike(ray_session):
    serial, ray = run(Serial()), run(Ray(num_actors=2))
    assert [told(r) for r in serial] == [told(r) for r in ray]
    assert [r.metadata.src_node_id for r in serial[0]] == [r.metadata.src_node_id for r in ray[0]]


def test_a_client_that_raises_becomes_an_error_reply_that_names_it_and_the_round(pool):
    replies = run(pool, Adding("raise", who=3))[1]
    errors = [r.error.reason for r in replies if r.has_error()]
    assert errors == ["client 3, round 2: ZeroDivisionError: on purpose"]
    assert sum(not r.has_error() for r in replies) == NUM_CLIENTS - 1


def test_serial_can_raise_what_the_client_raised():
    with pytest.raises(ZeroDivisionError) as caught:
        run(Serial(fail_fast=True), Adding("raise", who=3))
    assert caught.value.__notes__ == ["client 3, round 1"]


def test_an_actor_killed_in_a_round_is_replaced_and_the_result_is_unchanged(ray_session, tmp_path):
    app = Adding("die once", who=2, flag=str(tmp_path / "died"))
    expected = [told(r) for r in run(Serial())]
    history = [told(r) for r in run(Ray(num_actors=2), app)]
    assert (tmp_path / "died").exists()
    assert history == expected


def test_an_actor_killed_between_rounds_loses_no_clients_state(ray_session):
    import os
    import signal

    def main(grid):
        first = told(grid.send_and_receive(wave(grid, 1)))
        for pid in grid.pids():
            os.kill(pid, signal.SIGKILL)
        return first, told(grid.send_and_receive(wave(grid, 2)))

    assert list(run(Ray(num_actors=2), main=main)) == [told(r) for r in run(Serial())[:2]]


def test_a_client_that_kills_every_process_is_given_up_and_the_others_go_on(ray_session):
    replies = run(Ray(num_actors=2), Adding("die always", who=1))[0]
    errors = [r.error.reason for r in replies if r.has_error()]
    assert errors == ["client 1: its process died 2 times on this message"]
    assert len(replies) == NUM_CLIENTS


def test_a_client_that_hangs_becomes_an_error_reply_and_the_others_go_on(ray_session):
    history = run(Ray(num_actors=2, timeout_s=3.0), Adding("hang", who=1), lambda g: rounds(g, 2))
    for number, replies in enumerate(history, start=1):
        values = told(replies)
        assert values.count("client 1: exceeded pool.timeout_s=3.0") == 1
        assert sum(v[1] == number for v in values if not isinstance(v, str)) == NUM_CLIENTS - 1


def test_the_time_of_a_whole_wave_is_limited(ray_session):
    def main(grid):
        return grid.send_and_receive(wave(grid), timeout=3.0)

    replies = run(Ray(num_actors=2), Adding("hang", who=1), main)
    assert len(replies) == NUM_CLIENTS
    assert "client 1: no answer within the time of the round" in told(replies)


def test_an_app_that_cannot_be_built_says_why(ray_session):
    with pytest.raises(Exception, match="no data on this machine"):
        run(Ray(num_actors=1), Unbuildable())


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


def test_a_message_to_an_unknown_node_is_refused(pool):
    def main(grid):
        return grid.push_messages([Message(RecordDict(), 12345, "train")])

    with pytest.raises(ValueError, match="Unknown node 12345"):
        run(pool, main=main)


def test_flowers_own_simulation_gives_the_same_answers():
    def main(grid):
        while len(list(grid.get_node_ids())) < NUM_CLIENTS:
            pass
        return [sorted(map(str, told(replies))) for replies in rounds(grid, 2)]

    expected = [sorted(map(str, told(replies))) for replies in run(Serial())[:2]]
    assert run(Flower(), main=main) == expected


def test_flowers_own_simulation_raises_what_main_raises():
    def main(grid):
        raise KeyError("from the server")

    with pytest.raises(KeyError, match="from the server"):
        run(Flower(), main=main)


def test_an_existing_cluster_is_joined_and_left_up(ray_session):
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        history = run(Ray(address=cluster.address, num_actors=2))
        assert [told(r) for r in history] == [told(r) for r in run(Serial())]
        assert ray.get_runtime_context().gcs_address == cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_more_actors_than_there_is_room_for_are_refused(ray_session):
    with pytest.raises(ConfigError, match=r"pool\.num_cpus=1000.*expected room for 1 actor"):
        run(Ray(num_cpus=1000))


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


class _Nodes(LocalGrid):
    def execute(self, wave, timeout):
        raise NotImplementedError
