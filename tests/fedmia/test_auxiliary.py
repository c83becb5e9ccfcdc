import numpy as np
import pytest

from fedmia import auxiliary, experiment
from fedmia.config import compose
from fedmia.datasets.base import Dataset
from fedmia.errors import ConfigError
from fedmia.preparation import prepare
from fedmia.records import Examples

SMALL = ["pool=serial", "num_clients=4", "candidates.nonmembers=100"]


def rng(seed=0):
    return np.random.default_rng(seed)


def vectors(n=200, d=5):
    x = (np.arange(1, d + 1) * rng().normal(size=(n, d))).astype(np.float32)
    return Examples(x, np.arange(n) % 3)


def test_shifted_vectors_keep_labels_and_order_but_not_values():
    records = vectors()

    moved = auxiliary.shifted(records, rng(1))

    assert moved.x.dtype == np.float32
    assert (moved.y == records.y).all()
    for before, after in zip(records.x.T, moved.x.T, strict=True):
        assert 0.5 < np.corrcoef(before, after)[0, 1] < 0.99
    gains = (moved.x * records.x).sum(0) / (records.x**2).sum(0)
    assert np.log(gains).std() > 0.1, "each feature has a factor of its own"
    residual = moved.x - records.x * (moved.x * records.x).sum(0) / (records.x**2).sum(0)
    assert residual.std(axis=0) / records.x.std(axis=0) == pytest.approx([0.5] * 5, rel=0.2)


def test_shifted_images_are_turned_and_blurred_each_for_itself():
    x = np.zeros((3, 1, 9, 9), np.float32)
    x[1, 0, 4, :] = 1  # a horizontal bar

    moved = auxiliary.shifted(Examples(x, np.zeros(3, np.int64)), rng()).x

    assert not moved[0].any()
    assert not moved[2].any()
    assert moved[1].sum() == pytest.approx(9, rel=0.3)
    rows = (moved[1, 0] * np.arange(9)[:, None]).sum(0) / moved[1, 0].sum(0)  # per column
    assert abs(rows[8] - rows[0]) == pytest.approx(8 * np.tan(np.radians(20)), rel=0.3)


def test_another_data_set_takes_shape_and_labels_of_ours():
    other = Dataset(np.array([[0, 1, 2], [4, 1, 8]], np.float32), np.array([0, 4]), tuple("abcde"))
    ours = Dataset(
        np.array([[-1, 1, 3, 0, 2]], np.float32).reshape(1, 1, 1, 5), np.array([0]), tuple("pqr")
    )

    made = auxiliary.rescaled(auxiliary.reshaped(other, ours), ours)

    assert auxiliary.reshaped(other, ours).x[0].ravel().tolist() == [0, 0.5, 1, 1.5, 2]
    # and [4, 2.5, 1, 4.5, 8]; the middle one says nothing
    sign, mean, deviation = np.array([-1, -1, 0, -1, -1]), 1, 2**0.5
    assert made.x.shape == (2, 1, 1, 5)
    assert made.x[0].ravel() == pytest.approx(mean + deviation * sign)
    assert made.x[1].ravel() == pytest.approx(mean - deviation * sign)
    assert made.y.tolist() == [0, 1]


@pytest.mark.parametrize("unit", [1e-3, 1e6])
def test_another_data_set_is_brought_to_the_scale_of_ours_whatever_its_own(unit):
    ours = Dataset(rng().random((50, 1, 4, 4), np.float32), np.arange(50) % 2, ("p", "q"))
    table = (unit * (5 + rng(1).normal(size=(400, 9)))).astype(np.float32)

    other = auxiliary.reshaped(Dataset(table, np.arange(400) % 3, tuple("abc")), ours)
    made = auxiliary.rescaled(other, ours)

    assert ours.x.min() <= made.x.min() < made.x.max() <= ours.x.max()
    assert made.x.mean() == pytest.approx(ours.x.mean(), abs=0.02)
    assert made.x.std() == pytest.approx(ours.x.std(), rel=0.15)
    middle = (made.x[:, 0, 0, 0] > ours.x.min()) & (made.x[:, 0, 0, 0] < ours.x.max())
    assert np.corrcoef(made.x[middle, 0, 0, 0], table[middle, 0])[0, 1] > 0.999


@pytest.mark.parametrize(("share", "size"), [(0, 0), (0.1, 20), (1, 200)])
def test_a_share_is_drawn_without_replacement(share, size):
    records = vectors()

    some = auxiliary.share_of(records, share, rng())

    assert len(some) == size
    assert len({row.tobytes() for row in some.x}) == size
    assert auxiliary.overlap(some, records) == size


def test_the_auxiliary_records_are_the_held_out_ones_that_nobody_asks_about():
    stage = prepare(compose(SMALL))

    assert len(stage.auxiliary) == len(stage.split.auxiliary) > 0
    evaluated = stage.dataset.examples(stage.candidates.index)
    assert auxiliary.overlap(stage.auxiliary, evaluated) == 0
    tenth = prepare(compose([*SMALL, "knowledge.auxiliary=0.1"])).auxiliary
    assert len(tenth) == round(len(stage.auxiliary) / 10)
    assert len(prepare(compose([*SMALL, "knowledge.auxiliary=0"])).auxiliary) == 0


def test_another_domain_comes_from_another_data_set():
    other = prepare(
        compose([*SMALL, "knowledge.domain=other", "dataset@knowledge.other=breast_cancer"])
    )

    assert other.auxiliary.x.shape == (569, 1, 8, 8)
    assert set(other.auxiliary.y) == {0, 1}
    assert other.auxiliary.x.min() >= 0, "pixels are not negative, standardised columns are"
    assert other.auxiliary.x.max() <= 1


def test_auxiliary_records_that_are_evaluated_are_refused():
    settings = compose([*SMALL, "knowledge.domain=other", "dataset@knowledge.other=digits"])

    with pytest.raises(ConfigError) as caught:
        experiment.check(settings)

    assert str(caught.value).startswith(
        "knowledge.other=fedmia.datasets.digits.Digits: expected records that are not evaluated, "
    )
