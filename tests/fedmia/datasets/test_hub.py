import sys

import numpy as np
import pytest
from PIL import Image

from fedmia.datasets.hub import Hub
from fedmia.errors import ConfigError


def load(**settings):
    return Hub(**settings).load(np.random.default_rng(0))


def test_without_the_extra_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError) as caught:
        load(name="uoft-cs/cifar10")
    assert str(caught.value) == (
        "name=uoft-cs/cifar10: expected the extra 'hub': pip install 'fedmia[hub]'"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "name=None: expected a name on the Hub, or path=FOLDER"),
        ({"name": "x", "size": 0}, "size=0: expected null or at least 1 pixel"),
        ({"name": "x", "num_records": 0}, "num_records=0: expected null or at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError) as caught:
        Hub(**settings)
    assert str(caught.value) == message


@pytest.fixture
def pictures(tmp_path):
    """Six pictures of two classes by three writers, as ``save_to_disk`` leaves them."""
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("flwr_datasets")
    columns = {
        "img": [Image.new("L", (8, 8), 40 * k) for k in range(6)],
        "digit": [1, 0, 1, 0, 1, 0],
        "writer": ["w2", "w1", "w2", "w0", "w1", "w1"],
        "height": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    }
    features = datasets.Features(
        img=datasets.Image(),
        digit=datasets.ClassLabel(names=["zero", "one"]),
        writer=datasets.Value("string"),
        height=datasets.Value("float32"),
    )
    data = datasets.Dataset.from_dict(columns, features=features)
    data.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict(train=data).save_to_disk(str(tmp_path / "dict"))
    (tmp_path / "parquet").mkdir()
    data.to_parquet(str(tmp_path / "parquet" / "train.parquet"))
    return tmp_path


@pytest.mark.parametrize("form", ["saved", "dict", "parquet"])
def test_pictures_classes_and_owners_of_a_local_copy(pictures, form):
    data = load(
        path=str(pictures / form), image="img", label="digit", owner="writer", grayscale=True
    )
    assert data.x.shape == (6, 1, 8, 8)
    assert data.x[:, 0, 0, 0].tolist() == pytest.approx([k * 40 / 255 for k in range(6)])
    assert data.class_names == ("zero", "one")  # the data set's order, not the alphabet's
    assert data.y.tolist() == [1, 0, 1, 0, 1, 0]
    assert data.owner_names == ("w0", "w1", "w2")
    assert data.owner.tolist() == [2, 1, 2, 0, 1, 1]


def test_a_table_of_a_local_copy(pictures):
    path = str(pictures / "saved")
    data = load(path=path, label="digit", features=["height"], standardise=False)
    assert data.x.ravel().tolist() == [1, 2, 3, 4, 5, 6]
    assert data.y.tolist() == [1, 0, 1, 0, 1, 0]
    assert data.class_names == ("zero", "one")


def test_fewer_records_are_drawn_at_random(pictures):
    settings = {"path": str(pictures / "saved"), "image": "img", "label": "digit", "num_records": 4}
    seen = set()
    for seed in range(8):
        data = Hub(**settings).read(np.random.default_rng(seed))
        assert len(data) == 4
        seen.add(tuple(data.x[:, 0, 0, 0].tolist()))
    assert len(seen) > 1


def test_what_a_local_copy_lacks_is_said_in_one_line(pictures, monkeypatch):
    path = str(pictures / "saved")
    with pytest.raises(ConfigError, match=r"^image=im: expected one of the columns img, digit"):
        load(path=path, image="im", label="digit")
    with pytest.raises(ConfigError, match=r"^image=height: .* row 1 holds float$"):
        load(path=path, image="height", label="digit")
    for form in ("dict", "parquet"):
        with pytest.raises(ConfigError, match="with a split 'test'") as caught:
            load(path=str(pictures / form), image="img", label="digit", split="test")
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"none: expected an existing folder$"):
        load(path=str(pictures / "none"), image="img", label="digit")


def test_an_unreachable_hub_is_said_in_one_line(monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("flwr_datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError) as caught:
        load(name="fedmia/no-such-data-set", image="img")
    assert str(caught.value).startswith("name=fedmia/no-such-data-set: expected a data set that")
    assert "\n" not in str(caught.value)
