"""From named columns to features, labels and owners."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmia.datasets.base import Dataset
from fedmia.datasets.scaling import standardise
from fedmia.errors import ConfigError, expect

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

_LARGEST = float(np.finfo(np.float32).max)

_EMPTY = {"", "nan", "None", "<NA>", "NaT"}
"""How missing cells read as text, whichever file format they came from."""

Floats = NDArray[np.float64]


def to_dataset(
    frame: "pd.DataFrame",
    source: str,
    label: str,
    features: Sequence[str] | None,
    owner: str | None,
    scale: bool,
) -> Dataset:
    """Return the table as a ``Dataset`` of flat features.

    A column counts as numeric if at least half of its filled cells are numbers; then every cell
    has to be one. Any other column is categorical and becomes one 0/1 feature a category. No cell
    may be empty.

    Parameters
    ----------
    frame
        The table; its index is the row number that errors name.
    source
        ``key=value`` of the setting that named the table, for errors.
    label, owner
        Columns of the class and of the natural owner (``None``: no owners).
    features
        Columns to learn from; ``None``: all other numeric ones.
    scale
        Whether numeric columns are standardised.

    Raises
    ------
    ConfigError
        If a column does not exist, or a cell cannot be used: row and column are named.
    """
    listed = not isinstance(features, str)
    expect(listed, "features", features, "null or a list of columns, e.g. [age, stay]")
    for key, names in (("label", [label]), ("owner", [owner]), ("features", features or [])):
        for name in names:
            known = ", ".join(frame.columns[:30]) + (", …" if len(frame.columns) > 30 else "")
            expect(name is None or name in frame, key, name, f"one of the columns {known}")
    expect(label not in (features or []), "features", features, f"no label '{label}' among them")
    blocks: list[Floats] = []
    for name in frame.columns if features is None else features:
        if features is None and name in (label, owner):
            continue
        numbers = _numbers(frame[name], source)
        if numbers is not None:
            blocks.append((standardise(numbers[:, None])) if scale else numbers[:, None])
        elif features is None:
            log.warning("column '%s' is not numeric: left out unless named in features", name)
        else:
            _, codes = categories(frame[name], source)
            blocks.append(np.eye(codes.max() + 1)[codes])
    expect(bool(blocks), "features", features, "at least one column, and null finds no numeric one")
    class_names, y = categories(frame[label], source)
    owner_names, owners = ((), None) if owner is None else categories(frame[owner], source)
    x = np.hstack(blocks).astype(np.float32)
    return Dataset(x, y, class_names, owners, owner_names)


def _numbers(column: "pd.Series[Any]", source: str) -> Floats | None:
    """Return a numeric column's values, ``None`` for a categorical column."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column.dtype):
        values: Floats = np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    else:
        texts = _texts(column)
        parsed = pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce")
        values = np.asarray(parsed.to_numpy(dtype=np.float64))
        filled = sum(text != "" for text in texts)
        if 2 * np.count_nonzero(~np.isnan(values)) < filled:
            return None
    for position in np.flatnonzero(~(np.abs(values) <= _LARGEST))[:1]:
        large = np.isfinite(values[position])
        allowed = f"a number up to {_LARGEST:.1e}" if large else "a number"
        raise _bad_cell(column, int(position), source, allowed)
    return values


def categories(column: "pd.Series[Any]", source: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the sorted names and each row's index among them; whole numbers sort as numbers."""
    texts = _texts(column)
    for position, text in enumerate(texts):
        if text in _EMPTY:
            raise _bad_cell(column, position, source, "a name or a whole number")
    names = sorted(set(texts))
    with suppress(ValueError):  # not all are whole numbers: alphabetical order stays
        names.sort(key=int)
    code = {name: index for index, name in enumerate(names)}
    return tuple(names), np.array([code[text] for text in texts], dtype=np.int64)


def _texts(column: "pd.Series[Any]") -> list[str]:
    """Return the cells as text, whole floats without their ``.0``."""
    return [
        str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()
        for cell in column
    ]


def _bad_cell(column: "pd.Series[Any]", position: int, source: str, allowed: str) -> ConfigError:
    cell = column.iloc[position]
    got = "an empty cell" if str(cell).strip() in _EMPTY else repr(cell)
    where = f"row {column.index[position]}, column '{column.name}'"
    return ConfigError(f"{source}: {where}: expected {allowed}, got {got}")
