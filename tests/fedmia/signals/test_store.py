import numpy as np
import pytest

from fedmia.signals.store import remember

LAYOUT = {"square": ((3, 2), np.float64), "label": ((4,), np.float32)}


def fill(arrays):
    arrays["square"][0] = [1.0, 4.0]
    arrays["label"][:] = 7


def refuse(arrays):
    raise AssertionError("computed again")


def expect_filled(arrays):
    np.testing.assert_array_equal(arrays["square"], [[1, 4], [np.nan] * 2, [np.nan] * 2])
    np.testing.assert_array_equal(arrays["label"], [7] * 4)
    assert arrays["square"].dtype == np.float64
    assert arrays["label"].dtype == np.float32


def test_arrays_are_kept_and_not_computed_again(tmp_path):
    expect_filled(remember(tmp_path / "key" / "pass", LAYOUT, fill))
    expect_filled(remember(tmp_path / "key" / "pass", LAYOUT, refuse))
    assert [p.name for p in (tmp_path / "key").iterdir()] == ["pass"]


def test_without_a_folder_they_stay_in_memory():
    expect_filled(remember(None, LAYOUT, fill))


def test_on_disk_they_are_memory_maps_from_the_beginning(tmp_path):
    seen = []
    remember(tmp_path / "pass", LAYOUT, lambda arrays: seen.extend(arrays.values()))
    again = remember(tmp_path / "pass", LAYOUT, refuse)
    assert all(isinstance(array, np.memmap) for array in [*seen, *again.values()])


@pytest.mark.parametrize("cached", [True, False])
def test_nobody_can_change_them_afterwards(tmp_path, cached):
    arrays = remember(tmp_path / "pass" if cached else None, LAYOUT, fill)
    with pytest.raises(ValueError, match="read-only"):
        arrays["square"][0, 0] = 5


def test_a_computation_that_dies_leaves_nothing_to_be_read(tmp_path):
    def die(arrays):
        fill(arrays)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remember(tmp_path / "pass", LAYOUT, die)
    assert list(tmp_path.iterdir()) == []
    expect_filled(remember(tmp_path / "pass", LAYOUT, fill))


def test_what_a_killed_process_left_is_not_read(tmp_path):
    remember(tmp_path / "pass", LAYOUT, lambda arrays: None)
    (tmp_path / "pass").rename(tmp_path / "pass.partial-1")
    expect_filled(remember(tmp_path / "pass", LAYOUT, fill))


@pytest.mark.parametrize("damage", ["truncated", "missing", "another shape", "no array"])
def test_damaged_arrays_are_computed_again(tmp_path, damage):
    folder = tmp_path / "pass"
    remember(folder, LAYOUT, lambda arrays: None)
    file = folder / "square.npy"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-8])
    elif damage == "missing":
        file.unlink()
    elif damage == "another shape":
        np.save(file, np.zeros((2, 2)))
    else:
        file.write_bytes(b"not numpy")
    expect_filled(remember(folder, LAYOUT, fill))
    expect_filled(remember(folder, LAYOUT, refuse))


def test_a_place_that_cannot_be_written_costs_the_cache_not_the_run(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    expect_filled(remember(tmp_path / "file" / "pass", LAYOUT, fill))
    assert "signals are not cached" in caplog.text


def test_empty_arrays_need_no_file(tmp_path):
    arrays = remember(tmp_path / "pass", {"none": ((0, 3), np.float64)}, lambda arrays: None)
    assert arrays["none"].shape == (0, 3)
