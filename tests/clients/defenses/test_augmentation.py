"""Records are changed as is said, each in its own way, and anew in every epoch."""

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import FedAvg
from local_training import data, fitted, session

from clients.defenses.augmentation import Augmentation, shifted, without_square
from fedmia import composition
from fedmia.errors import ConfigError
from fedmia.stack import Stack

NOTHING = {"shift": 0, "noise": 0.0}


def changed(x, **settings):
    """What an epoch sees of records x."""
    current = session(Augmentation(**NOTHING | settings), (x, torch.zeros(len(x)).long()))
    targets = torch.ones(len(x), 2)
    found, same = current.epoch(1, x, targets)
    assert same is targets
    return found


IMAGE = torch.tensor([[[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]]])


def test_images_are_moved_down_and_right_and_zeros_come_in():
    found = shifted(IMAGE.repeat(3, 1, 1, 1), torch.tensor([1, 0, -1]), torch.tensor([0, -2, 1]))
    assert found[:, 0].tolist() == [
        [[0, 0, 0], [1, 2, 3], [4, 5, 6]],
        [[3, 0, 0], [6, 0, 0], [9, 0, 0]],
        [[0, 4, 5], [0, 7, 8], [0, 0, 0]],
    ]


def test_channels_move_together():
    x = torch.rand(4, 3, 5, 6)
    down, right = torch.tensor([1, -2, 0, 2]), torch.tensor([-1, 0, 3, 5])
    found = shifted(x, down, right)
    for i in range(4):
        for row in range(5):
            for column in range(6):
                a, b = row - down[i], column - right[i]
                inside = 0 <= a < 5 and 0 <= b < 6
                wanted = x[i, :, a, b] if inside else torch.zeros(3)
                assert torch.equal(found[i, :, row, column], wanted)


def test_a_square_is_cut_out_which_may_lie_outside_in_part():
    rows, columns = torch.tensor([1, 0, 2]), torch.tensor([1, 0, 2])
    found = without_square(IMAGE.repeat(3, 1, 1, 1), 2, rows, columns)
    assert found[:, 0].tolist() == [
        [[0, 0, 3], [0, 0, 6], [7, 8, 9]],
        [[0, 2, 3], [4, 5, 6], [7, 8, 9]],
        [[1, 2, 3], [4, 0, 0], [7, 0, 0]],
    ]
    assert without_square(IMAGE, 3, torch.tensor([1]), torch.tensor([1])).count_nonzero() == 0


def test_every_shift_up_to_the_most_comes_up_equally_often():
    x = torch.zeros(4000, 1, 5, 5)
    x[:, 0, 2, 2] = 1.0
    where = changed(x, shift=2)[:, 0].nonzero()[:, 1:] - 2
    for axis in (0, 1):
        counts = torch.bincount(where[:, axis] + 2, minlength=5) / 4000
        assert counts.tolist() == pytest.approx([0.2] * 5, abs=0.03)


def test_half_of_the_images_are_mirrored():
    x = IMAGE.repeat(1000, 1, 1, 1)
    found = changed(x, flip=True)
    mirrored = torch.tensor([torch.equal(image, IMAGE[0].flip(2)) for image in found])
    same = torch.tensor([torch.equal(image, IMAGE[0]) for image in found])
    assert bool((mirrored ^ same).all())
    assert float(mirrored.float().mean()) == pytest.approx(0.5, abs=0.05)


def test_squares_are_cut_around_any_pixel():
    holes = changed(torch.ones(2000, 2, 3, 4), cutout=1) == 0
    assert torch.equal(holes[:, 0], holes[:, 1])
    assert holes[:, 0].sum((1, 2)).tolist() == [1] * 2000
    assert holes[:, 0].float().mean(0) == pytest.approx(np.full((3, 4), 1 / 12), abs=0.03)


def test_features_are_masked_with_their_probability():
    found = changed(torch.ones(1000, 8), mask=0.3)
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert (found == 0).float().mean(0) == pytest.approx(np.full(8, 0.3), abs=0.06)


@pytest.mark.parametrize("shape", [(2000, 3), (500, 1, 2, 2)])
def test_noise_has_the_standard_deviation_that_is_asked_for(shape):
    found = changed(torch.ones(shape), noise=0.2)
    assert float(found.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(found.std()) == pytest.approx(0.2, rel=0.05)


def test_every_epoch_changes_the_records_anew_and_leaves_those_given():
    x, _ = data()
    before = x.clone()
    current = session(Augmentation(1, True, 2, 0.0, 0.1))
    first, second = (current.epoch(i, x, torch.ones(10, 2))[0] for i in (1, 2))
    assert not torch.equal(first, second)
    assert torch.equal(x, before)
    assert first.shape == x.shape
    assert first.dtype == x.dtype


def test_training_repeats_for_a_generator_and_is_another_than_without():
    models = [fitted(Augmentation(), seed=seed)[0].flat for seed in (3, 3, 4)]
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])
    assert not torch.allclose(models[0], fitted(None)[0].flat, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "shape", "line"),
    [
        ({"shift": 1}, (30,), "shift=1: expected 0: it is for images only; records are 30"),
        ({"flip": True}, (30,), "flip=True: expected false: it is for images only; records are 30"),
        ({"cutout": 2}, (4, 4), "cutout=2: expected 0: it is for images only; records are 4×4"),
        ({"mask": 0.1}, (1, 8, 8), "mask=0.1: expected 0: it is for tables only; .* 1×8×8"),
        ({"shift": 4}, (1, 8, 4), "shift=4: expected less than the side, 4"),
    ],
)
def test_changes_that_do_not_fit_the_records_are_refused_before_training(settings, shape, line):
    defense = Augmentation(**NOTHING | {"noise": 0.1} | settings)
    stack = Stack(FedAvg(fraction_evaluate=0.0), {"augmentation": defense}, [20], input_shape=shape)
    with pytest.raises(ConfigError, match=rf"^client\.defenses\.augmentation\.{line}$"):
        composition.check(stack)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"shift": -1}, "shift=-1: expected at least 0"),
        ({"cutout": -1}, "cutout=-1: expected at least 0"),
        ({"mask": 1.0}, r"mask=1\.0: expected in \[0, 1\)"),
        ({"noise": np.nan}, "noise=nan: expected at least 0 and finite"),
        (NOTHING, r"noise=0\.0: expected more than 0, or another change"),
    ],
)
def test_values_out_of_range_are_refused_in_one_line(settings, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        Augmentation(**settings)
