"""What adds to steps of SGD is refused, before training, where it would find none."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
from flwr.serverapp.strategy import FedAvg

from clients.defenses.dp_sgd import DpSgd
from fedmia import composition, config, experiment
from fedmia.errors import ConfigError, expect
from fedmia.stack import Stack


@dataclass
class Adding:
    regularizes: ClassVar = True

    def trains(self, trainer, context):
        return trainer


@dataclass
class Wrapping:
    def trains(self, trainer, context):
        return trainer


@dataclass
class ImagesOnly:
    def check_input(self, shape):
        expect(len(shape) == 3, "shift", 1, "images")


def stack(mods, shape=(6,)):
    return Stack(FedAvg(fraction_evaluate=0.0), mods, [20, 20], input_shape=shape)


def refusal(given):
    with pytest.raises(ConfigError) as said:
        composition.check(given)
    return str(said.value)


PRIVATE = DpSgd(noise_multiplier=1.0, epsilon=None)


@pytest.mark.parametrize(
    "mods", [{"dp_sgd": PRIVATE, "mixup": Adding()}, {"mixup": Adding(), "dp_sgd": PRIVATE}]
)
def test_a_regulariser_is_refused_beside_dp_sgd_on_either_side(mods):
    shown = ", ".join(mods)
    expected = "expected no mixup beside dp_sgd, whose steps it cannot add to"
    assert refusal(stack(mods)) == f"client/defenses=[{shown}]: {expected}"


def test_what_wraps_training_stands_outside_of_what_adds_to_its_steps():
    composition.check(stack({"soteria": Wrapping(), "mixup": Adding()}))
    said = refusal(stack({"mixup": Adding(), "soteria": Wrapping()}))
    expected = "expected soteria before mixup, whose steps it is to have inside"
    assert said == f"client/defenses=[mixup, soteria]: {expected}"


def test_regularisers_go_together_and_dp_sgd_goes_alone():
    composition.check(stack({"mixup": Adding(), "dropout": Adding()}))
    composition.check(stack({"dp_sgd": PRIVATE}))


def test_a_defence_refuses_records_of_a_shape_that_is_not_its_own():
    composition.check(stack({"augmentation": ImagesOnly()}, (1, 8, 8)))
    composition.check(stack({"augmentation": ImagesOnly()}, None))
    said = refusal(stack({"augmentation": ImagesOnly()}))
    assert said == "client.defenses.augmentation.shift=1: expected images"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["dataset=wine", "partition.samples_per_client=6", "client/defenses=[augmentation]"],
            "client.defenses.augmentation.shift=1: expected 0: it is for images only; "
            "records are 13",
        ),
        (
            ["partition.samples_per_client=1", "partition=iid", "client/defenses=[early_stopping]"],
            "client.defenses.early_stopping.share=0.2: expected clients with two records or more, "
            "one to hold out; one has 1",
        ),
    ],
)
def test_an_experiment_that_cannot_be_is_refused_before_training(overrides, line):
    few = ["num_clients=4", "candidates.nonmembers=30"]
    with pytest.raises(ConfigError) as said:
        experiment.check(config.compose([*few, "pool=serial", *overrides]))
    assert str(said.value) == line
