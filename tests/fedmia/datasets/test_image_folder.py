import numpy as np
import pytest
from PIL import Image

from fedmia.datasets.image_folder import ImageFolder
from fedmia.errors import ConfigError


@pytest.fixture
def folder(tmp_path):
    for name, colour in (("cat", (255, 0, 51)), ("dog", (0, 255, 0))):
        (tmp_path / name).mkdir()
        for index in range(2):
            # one pixel apart, or they would be duplicates
            image = Image.new("RGB", (8, 8), colour)
            image.putpixel((index, 0), (0, 0, 0))
            image.save(tmp_path / name / f"{index}.png")
    (tmp_path / "dog" / "notes.txt").write_text("not a picture")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def load(folder, **settings):
    return ImageFolder(path=str(folder), **settings).load(np.random.default_rng(0))


def test_every_folder_is_a_class_and_pixels_lie_in_the_unit_interval(folder):
    data = load(folder, size=8)
    assert data.class_names == ("cat", "dog")
    assert data.y.tolist() == [0, 0, 1, 1]
    assert data.x.shape == (4, 3, 8, 8)
    assert data.x.dtype == np.float32
    assert data.x[0, :, 7, 7].tolist() == pytest.approx([1, 0, 0.2])
    assert data.x[0, :, 0, 0].tolist() == [0, 0, 0]  # channel, row, column
    assert data.x[1, :, 0, 1].tolist() == [0, 0, 0]


def test_pictures_are_stretched_and_made_grey_on_request(folder):
    data = load(folder, size=4, grayscale=True)
    assert data.x.shape == (4, 1, 4, 4)
    assert data.x[2, 0, 3, 3] == pytest.approx(0.587, abs=0.01)  # ITU-R 601 weight of green


def test_sixteen_bit_greys_are_scaled_not_cut_off(folder):
    Image.fromarray(np.full((8, 8), 32768, dtype=np.uint16)).save(folder / "cat" / "2.png")
    assert load(folder, size=8).x[2, 0, 0, 0] == pytest.approx(0.5, abs=0.01)


def test_an_unreadable_picture_is_named(folder):
    bad = folder / "dog" / "9.png"
    whole = (folder / "dog" / "0.png").read_bytes()
    for content in (b"", b"nonsense", whole[:60]):
        bad.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load(folder)
        assert str(caught.value).startswith(f"path={bad}: expected a readable picture (")
        assert "\n" not in str(caught.value)


def test_folders_that_hold_no_classes_are_refused(folder, tmp_path):
    (folder / "emu").mkdir()
    with pytest.raises(ConfigError, match=r"emu: expected pictures .* this is an empty class"):
        load(folder)
    with pytest.raises(ConfigError, match="expected at least 2 class folders, got 0"):
        load(folder / "emu")
    with pytest.raises(ConfigError, match="none: expected an existing folder"):
        load(tmp_path / "none")
    with pytest.raises(ConfigError, match="size=0: expected at least 1 pixel"):
        ImageFolder(path=".", size=0)
