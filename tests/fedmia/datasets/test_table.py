import logging

import numpy as np
import pandas as pd
import pytest

from fedmia.datasets.table import Table
from fedmia.errors import ConfigError

PATIENTS = """\
age,stay,ward,sex,ill
50,1.5,north,f,yes
60,2.5,south,m,no

70,3.5,south,f,no
"""


@pytest.fixture
def write(tmp_path):
    def write(content, name="t.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def load(path, **settings):
    settings = {"standardise": False} | settings
    return Table(path=path, **settings).load(np.random.default_rng(0))


def test_a_csv_gives_its_numeric_columns_labels_and_owners(write, caplog):
    with caplog.at_level(logging.WARNING):
        data = load(write(PATIENTS), label="ill", owner="ward")
    assert data.x.tolist() == [[50, 1.5], [60, 2.5], [70, 3.5]]
    assert data.x.dtype == np.float32
    assert data.class_names == ("no", "yes")
    assert data.y.tolist() == [1, 0, 0]
    assert data.owner_names == ("north", "south")
    assert data.owner.tolist() == [0, 1, 1]
    assert "column 'sex' is not numeric" in caplog.text


def test_text_columns_become_one_feature_a_category_and_are_not_scaled(write):
    path = write(PATIENTS)
    data = load(path, label="ill", features=["sex", "age"], standardise=True)
    root = np.sqrt(1.5)
    assert np.allclose(data.x, [[1, 0, -root], [0, 1, 0], [1, 0, root]])


def test_whole_number_classes_sort_as_numbers(write):
    data = load(write("x,label\n" + "".join(f"{k},{k}\n" for k in (10, 9, 2, 11))))
    assert data.class_names == ("2", "9", "10", "11")
    assert data.y.tolist() == [2, 1, 0, 3]


def test_owners_and_classes_read_alike_as_whole_numbers_and_as_floats(tmp_path):
    path = str(tmp_path / "t.parquet")
    for kind in ("int64", "float32", "float64", "str"):
        numbers = np.array([3, 12, 3])
        label = numbers.astype(kind) if kind != "str" else [str(k) for k in numbers]
        pd.DataFrame({"x": [1.0, 2.0, 3.0], "label": label, "who": label}).to_parquet(path)
        data = load(path, owner="who")
        assert data.class_names == data.owner_names == ("3", "12")
        assert data.y.tolist() == data.owner.tolist() == [0, 1, 0]


def test_parquet_and_npz_hold_the_same_table(tmp_path):
    frame = pd.DataFrame({"x[0]": [1.0, 2.0, 3.0], "x[1]": [4, 5, 6], "label": [0, 1, 0]})
    frame.to_parquet(tmp_path / "t.parquet")
    x = np.array([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]])
    np.savez(tmp_path / "t.npz", x=x, label=np.array([0, 1, 0]))
    for name in ("t.parquet", "t.npz"):
        data = load(str(tmp_path / name))
        assert data.x.tolist() == x.tolist()
        assert data.y.tolist() == [0, 1, 0]
        assert data.class_names == ("0", "1")


def test_standardised_columns_have_mean_zero_and_deviation_one(write):
    data = load(write(PATIENTS), label="ill", standardise=True)
    assert data.x.mean(axis=0) == pytest.approx(0, abs=1e-6)
    assert data.x.std(axis=0) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("age,label\n1,a\n2,b\nabc,a\n", "row 4, column 'age': expected a number, got 'abc'"),
        (
            "age,label\n1,a\n\n,b\n3,a\n",
            "row 4, column 'age': expected a number, got an empty cell",
        ),
        (
            "age,label\n1,a\n2\n3,a\n",
            "row 3, column 'label': expected a name or a whole number, got",
        ),
        ("age,label\n1,a\n2,b,c\n", "row 3: expected 2 cells, got 3"),
        ("age,label\n1,a,9\n2,b,9\n", "row 2: expected no more cells than the header"),
        ("age,label\n1,a\ninf,b\n", "row 3, column 'age': expected a number, got "),
        ("age,label\n1,a\nNaN,b\n", "row 3, column 'age': expected a number, got 'NaN'"),
        ("age,label\n1,a\n1e99,b\n", "row 3, column 'age': expected a number up to 3.4e+38, got"),
        ("", "row 1: expected a header, the file is empty"),
    ],
)
def test_a_malformed_csv_is_named_with_its_row_and_column(write, content, message):
    path = write(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(f"path={path}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("age,label\n", "expected at least one row of data"),
        ("a,a,label\n1,2,x\n", "expected different names for all columns, not ['a']"),
        (b"age,label\n\xff,a\n", "expected UTF-8 text (invalid start byte)"),
        ('age,label\n1,"a\n', "expected a CSV file ("),
    ],
)
def test_an_unreadable_csv_is_named(write, content, message):
    path = write(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(f"path={path}: {message}")


@pytest.mark.parametrize("name", ["t.parquet", "t.npz"])
def test_a_file_of_another_format_than_its_name_says_is_named(write, name):
    for content in (b"", b"nonsense", b"PAR1nonsense", b"PK\x03\x04nonsense"):
        path = write(content, name)
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value).startswith(f"path={path}: expected ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": "il"}, "label=il: expected one of the columns age, stay, ward, sex, ill"),
        ({"owner": "w"}, "owner=w: expected one of the columns age, stay, ward, sex, ill"),
        ({"features": ["age", "x"]}, "features=x: expected one of the columns age, stay, ward"),
        ({"features": ["age", "ill"]}, "features=['age', 'ill']: expected no label 'ill' among"),
        ({"features": "age"}, "features=age: expected null or a list of columns, e.g. [age, stay]"),
        ({"features": []}, "features=[]: expected at least one column"),
    ],
)
def test_columns_that_cannot_be_used_are_refused(write, settings, message):
    with pytest.raises(ConfigError) as caught:
        load(write(PATIENTS), **({"label": "ill"} | settings))
    assert str(caught.value).startswith(message)


def test_missing_cells_of_a_parquet_file_are_named(tmp_path):
    path = str(tmp_path / "t.parquet")
    frame = pd.DataFrame({"x": [1.0, None, 3.0], "label": ["a", "b", None]})
    frame.to_parquet(path)
    with pytest.raises(ConfigError, match="row 2, column 'x': expected a number, got an empty"):
        load(path)
    frame.assign(x=[1, 2, 3]).to_parquet(path)
    with pytest.raises(ConfigError, match=r"row 3, column 'label': .* got an empty cell"):
        load(path)


def test_a_missing_file_and_an_unknown_ending_are_refused(write, tmp_path):
    with pytest.raises(ConfigError, match=r"no\.csv: expected an existing file"):
        load(str(tmp_path / "no.csv"))
    with pytest.raises(ConfigError, match=r"ending in \.csv, \.parquet, \.npz"):
        load(write("x", "t.xlsx"))


def test_arrays_of_an_npz_file_must_fit_together(tmp_path):
    path = str(tmp_path / "t.npz")
    np.savez(path, x=np.zeros((3, 2)), label=np.zeros(4))
    with pytest.raises(ConfigError, match=r"'label' has shape \(4,\)"):
        load(path)
