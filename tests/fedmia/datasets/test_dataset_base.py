from dataclasses import dataclass

import numpy as np
import pytest

from fedmia.datasets.base import Dataset, DatasetSource
from fedmia.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Given(DatasetSource):
    dataset: Dataset

    def read(self, rng):
        return self.dataset


def load(x, y, seed=0, class_names=("a", "b"), owner=None, **settings):
    x = np.asarray(x, dtype=np.float32)
    owner = None if owner is None else np.asarray(owner)
    data = Dataset(x, np.asarray(y, dtype=np.int64), class_names, owner, ("p", "q"))
    return Given(dataset=data, **settings).load(np.random.default_rng(seed))


def test_the_first_of_equal_records_is_kept_with_its_label_and_owner():
    data = load([[1, 0], [2, 2], [1, -0.0], [2, 2], [3, 3]], [0, 1, 1, 0, 1], owner=[0, 1, 1, 0, 0])
    assert data.x.tolist() == [[1, 0], [2, 2], [3, 3]]
    assert data.y.tolist() == [0, 1, 1]
    assert data.owner.tolist() == [0, 1, 0]


def test_near_duplicates_go_only_when_asked_and_only_if_near_to_a_kept_record():
    x = [[0.0], [0.9], [1.8], [10.0], [10.5]]  # 1.8 is near to 0.9 alone, which is gone by then
    assert len(load(x, [0, 1, 0, 1, 0])) == 5
    assert load(x, [0, 1, 0, 1, 0], dedup_radius=1.0).x.ravel().tolist() == pytest.approx(
        [0, 1.8, 10]
    )


def test_near_duplicates_agree_with_the_pairwise_loop():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 2)).astype(np.float32)
    kept: list[int] = []
    for index in range(200):
        if all(np.linalg.norm(x[index] - x[other]) > 0.3 for other in kept):
            kept.append(index)
    data = load(x, np.arange(200) % 2, dedup_radius=0.3)
    assert 0 < len(kept) < 150
    assert (data.x == x[kept]).all()


def test_label_noise_redraws_the_declared_fraction_uniformly():
    y = np.zeros(20_000, dtype=np.int64)
    y[:4] = np.arange(4)
    names = ("a", "b", "c", "d")
    data = load(np.arange(20_000)[:, None], y, class_names=names, label_noise=0.2)
    # 4,000 re-drawn over 4 classes: 3,000 change, ± 27
    assert abs(np.count_nonzero(data.y != y) - 3000) < 120
    counts = np.bincount(data.y)[1:]
    assert np.abs(counts - 1000).max() < 120


def test_no_label_noise_leaves_labels_and_the_same_generator_gives_the_same_noise():
    y, x = np.arange(100) % 2, np.arange(100)[:, None]
    assert (load(x, y).y == y).all()
    assert (load(x, y, label_noise=1.0).y == load(x, y, label_noise=1.0).y).all()
    assert (load(x, y, label_noise=1.0).y != load(x, y, 1, label_noise=1.0).y).any()


def test_a_dataset_tells_its_sizes_and_hands_out_examples_in_order():
    data = load(np.arange(12).reshape(3, 1, 2, 2), [0, 1, 0])
    assert (len(data), data.num_classes, data.input_shape) == (3, 2, (1, 2, 2))
    examples = data.examples(np.array([2, 0]))
    assert examples.x[:, 0, 0, 0].tolist() == [8, 0]
    assert examples.y.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: load([[0]], [0], label_noise=1.5),
            "label_noise=1.5: expected a number in [0, 1]",
        ),
        (
            lambda: load([[0]], [0], label_noise=float("nan")),
            "label_noise=nan: expected a number in [0, 1]",
        ),
        (
            lambda: load([[0]], [0], dedup_radius=-1),
            "dedup_radius=-1: expected a finite number of at least 0",
        ),
        (
            lambda: load([[0, 1], [2, np.nan]], [0, 1]),
            "x=nan: expected finite numbers only (row 1, column 1, from 0)",
        ),
        (
            lambda: load([[0], [1]], [0, 0]),
            "classes=['a', 'b']: expected records of every class, 'b' is an empty class",
        ),
        (
            lambda: load([[0], [0]], [0, 1]),  # the only 'b' repeats the features of an 'a'
            "classes=['a', 'b']: expected records of every class, 'b' is an empty class",
        ),
        (
            lambda: load([[0], [1]], [0, 0], class_names=("a",)),
            "classes=['a']: expected at least 2 classes, got 1",
        ),
    ],
)
def test_unusable_records_are_refused_in_one_line(build, message):
    with pytest.raises(ConfigError) as caught:
        build()
    assert str(caught.value) == message


def test_noise_that_empties_a_class_is_refused_by_its_own_key():
    refused = 0
    for seed in range(20):
        try:
            load([[0], [1]], [0, 1], seed, label_noise=1.0)
        except ConfigError as error:
            refused += str(error).startswith("label_noise=1.0: expected records of every class")
    assert 3 <= refused <= 17  # one time in two
