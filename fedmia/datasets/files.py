"""Read a user's table, whatever its format, and say where it is broken."""

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fedmia.errors import ConfigError, expect

if TYPE_CHECKING:
    import pandas as pd


def read_frame(path: str) -> "pd.DataFrame":
    """Return the table in a ``.csv``, ``.parquet`` or ``.npz`` file.

    The index counts rows as a person does: from 2 in a CSV file, whose header is row 1 (blank
    lines count, and are left out), from 1 elsewhere. An array (n, d) named ``x`` in an NPZ file
    gives the columns ``x[0]`` … ``x[d−1]``; one of shape (n,) gives the column ``x``.

    Raises
    ------
    ConfigError
        If the file is missing or malformed, naming the row where there is one.
    """
    file = Path(path).expanduser()
    readers = {".csv": _csv, ".parquet": _parquet, ".npz": _npz}
    allowed = f"a file name ending in {', '.join(readers)}"
    expect(file.suffix.lower() in readers, "path", path, allowed)
    expect(file.is_file(), "path", path, f"an existing file (looked in {file.parent.absolute()})")
    frame = readers[file.suffix.lower()](file, path)
    repeated = frame.columns[frame.columns.duplicated()]
    expect(repeated.empty, "path", path, f"different names for all columns, not {list(repeated)}")
    expect(len(frame) > 0, "path", path, "at least one row of data")
    return frame


def _csv(file: Path, path: str) -> "pd.DataFrame":
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # header=None: pandas would rename repeated columns; blank lines are kept for counting
            names = pd.read_csv(file, header=None, nrows=1, dtype=str, na_filter=False,
                                encoding="utf-8-sig", skip_blank_lines=False).iloc[0]  # fmt: skip
            frame = pd.read_csv(file, index_col=False, na_filter=False, encoding="utf-8-sig",
                                skip_blank_lines=False, low_memory=False)  # fmt: skip
    except pd.errors.ParserWarning:
        raise ConfigError(f"path={path}: row 2: expected no more cells than the header") from None
    except pd.errors.EmptyDataError:
        raise ConfigError(f"path={path}: row 1: expected a header, the file is empty") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"path={path}: expected UTF-8 text ({error.reason})") from None
    except (pd.errors.ParserError, OSError) as error:
        found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
        if found:
            cells, row, got = found.groups()
            message = f"path={path}: row {row}: expected {cells} cells, got {got}"
            raise ConfigError(message) from None
        raise ConfigError(f"path={path}: expected a CSV file ({_line(error)})") from None
    frame.columns = pd.Index([str(name) for name in names])
    frame.index = pd.RangeIndex(2, len(frame) + 2)
    if any(pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes):
        return frame
    return frame[~(frame == "").all(axis=1)]  # a blank line has made every column text


def _parquet(file: Path, path: str) -> "pd.DataFrame":
    import pandas as pd

    try:
        frame = pd.read_parquet(file).reset_index(drop=True)
    except (OSError, ValueError) as error:  # pyarrow's errors are among these
        raise ConfigError(f"path={path}: expected a Parquet file ({_line(error)})") from None
    frame.columns = pd.Index([str(name) for name in frame.columns])
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return frame


def _npz(file: Path, path: str) -> "pd.DataFrame":
    import pandas as pd

    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, BadZipFile) as error:
        raise ConfigError(f"path={path}: expected an NPZ file ({_line(error)})") from None
    columns: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        fits = array.ndim in (1, 2) and len(array) == len(next(iter(arrays.values())))
        allowed = f"arrays (n,) or (n, d) of one n, '{name}' has shape {array.shape}"
        expect(fits, "path", path, allowed)
        if array.ndim == 1:
            columns[name] = array
        else:
            columns |= {f"{name}[{index}]": column for index, column in enumerate(array.T)}
    frame = pd.DataFrame(columns)
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return frame


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
