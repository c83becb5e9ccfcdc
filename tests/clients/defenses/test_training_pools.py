"""Training defences give the same bytes in this process and on Ray actors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from local_training import CLASSES, SHAPE, data, network

from clients.defenses.adversarial_regularization import AdversarialRegularization
from clients.defenses.augmentation import Augmentation
from clients.defenses.data_sampling import DataSampling
from clients.defenses.distillation import Distillation
from clients.defenses.dropout import Dropout
from clients.defenses.early_stopping import EarlyStopping
from clients.defenses.hamp import Hamp
from clients.defenses.label_smoothing import LabelSmoothing
from clients.defenses.mixup import Mixup
from clients.defenses.relaxloss import RelaxLoss
from clients.honest import Honest
from fedmia.arrays import to_params, to_record
from fedmia.federation import Federation
from fedmia.grid.ray import Ray
from fedmia.grid.serial import Serial
from fedmia.models.mlp import MLP
from fedmia.records import Examples
from fedmia.training import LocalSGD

ALL = (
    RelaxLoss(1.0),
    EarlyStopping(),
    Dropout(),
    Mixup(),
    LabelSmoothing(),
    DataSampling(),
    Augmentation(),
    AdversarialRegularization(),
    Hamp(),
    Distillation(weight=0.5),
)


def federation():
    torch.manual_seed(0)
    module = MLP([6, 5])(SHAPE, CLASSES)
    shards = [Examples(*(t.numpy() for t in data(12, seed))) for seed in range(3)]
    return Federation(Honest(), ALL, module, LocalSGD(1, 4, lr=0.2), shards, seed=0)


def rounds(grid):
    """Five rounds of averaging; the global model after each."""
    params, history = network().params(), []
    for server_round in range(1, 6):
        config = ConfigRecord({"server-round": server_round})
        content = RecordDict({"arrays": to_record(params), "config": config})
        wave = [Message(content, node, "train") for node in grid.get_node_ids()]
        replies = [to_params(r.content["arrays"]) for r in grid.send_and_receive(wave)]
        params = {name: np.mean([r[name] for r in replies], axis=0) for name in params}
        history.append(params)
    return history


@pytest.mark.slow
def test_all_together_give_the_same_bytes_on_serial_and_ray(ray_session):
    serial, ray = (pool.run(federation(), 3, 7, rounds) for pool in (Serial(), Ray(num_actors=2)))
    for here, there in zip(serial, ray, strict=True):
        assert all(np.array_equal(here[name], there[name]) for name in here)


def test_every_defence_has_its_part_in_the_model():
    def trained(mods):
        (*_, last) = Serial().run(replace(federation(), mods=mods), 3, 7, rounds)
        return np.concatenate([value.ravel() for value in last.values()])

    whole = trained(ALL)
    for i in range(len(ALL)):
        assert not np.array_equal(whole, trained(ALL[:i] + ALL[i + 1 :])), ALL[i]
