"""Mods that change updates, around real clients: the same bytes in this process and on Ray."""

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict

from clients.defenses.dct_perturbation import DctPerturbation
from clients.defenses.qsgd import Qsgd
from clients.defenses.random_sparsification import RandomSparsification
from clients.defenses.sign_sgd import SignSgd
from clients.defenses.soteria import Soteria
from clients.defenses.top_k import TopK
from clients.honest import Honest
from fedmia.arrays import to_params, to_record
from fedmia.federation import Federation
from fedmia.grid.ray import Ray
from fedmia.grid.serial import Serial
from fedmia.models.mlp import MLP
from fedmia.records import PAYLOAD, Examples
from fedmia.training import FlatModel, LocalSGD

ALL = (
    TopK(0.5, whole_below=0),
    Qsgd(),
    SignSgd(),
    RandomSparsification(0.7),
    DctPerturbation(),
    Soteria(),
)


def federation(mods=ALL):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    shards = [
        Examples(rng.normal(size=(12, 4)).astype(np.float32), np.arange(12) % 3) for _ in range(3)
    ]
    return Federation(Honest(), mods, MLP([6])((4,), 3), LocalSGD(1, 4), shards, seed=0)


def rounds(grid):
    """Four rounds of averaging; models and bytes of all answers."""
    params, history = FlatModel(federation().model).params(), []
    for server_round in range(1, 5):
        config = ConfigRecord({"server-round": server_round})
        content = RecordDict({"arrays": to_record(params), "config": config})
        wave = [Message(content, node, "train") for node in grid.get_node_ids()]
        replies = sorted(grid.send_and_receive(wave), key=lambda r: r.metadata.src_node_id)
        found = [to_params(r.content["arrays"]) for r in replies]
        sizes = [r.content["metrics"][PAYLOAD] for r in replies]
        params = {k: np.mean([r[k] for r in found], axis=0, dtype=np.float32) for k in params}
        history.append((params, found, sizes))
    return history


@pytest.mark.slow
def test_all_together_give_the_same_bytes_on_serial_and_ray(ray_session):
    serial, ray = (pool.run(federation(), 3, 7, rounds) for pool in (Serial(), Ray(num_actors=2)))
    for (_, ours, sizes), (_, theirs, others) in zip(serial, ray, strict=True):
        assert sizes == others
        for one, other in zip(ours, theirs, strict=True):
            assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("mod", ALL[:3], ids=lambda mod: type(mod).__name__)
def test_a_mod_alone_sends_less_than_the_model_and_another_model(mod):
    changed = Serial().run(federation((mod,)), 3, 7, rounds)
    honest = to_params(Serial().run(federation(()), 3, 7, first_answer))
    params, (first, *_), sizes = changed[0]
    assert all(size < sum(v.nbytes for v in params.values()) for size in sizes)
    assert any(not np.array_equal(first[name], honest[name]) for name in first)


def first_answer(grid):
    content = RecordDict(
        {
            "arrays": to_record(FlatModel(federation().model).params()),
            "config": ConfigRecord({"server-round": 1}),
        }
    )
    wave = [Message(content, node, "train") for node in grid.get_node_ids()]
    replies = sorted(grid.send_and_receive(wave), key=lambda r: r.metadata.src_node_id)
    return replies[0].content["arrays"]
