"""Arrays that appear on disk complete or not at all, and are read back memory-mapped."""

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]
Layout = Mapping[str, tuple[tuple[int, ...], type]]
"""Shape and dtype of each array by name."""


def remember(folder: Path | None, layout: Layout, fill: Callable[[Arrays], None]) -> Arrays:
    """Return the arrays kept in ``folder``; where there are none, have ``fill`` write them first.

    ``fill`` gets arrays of NaN laid out as ``layout`` says. They are memory maps in a partial
    folder, renamed when they are whole, so memory does not grow with their size and nobody reads
    half of them. With ``folder=None``, or a place that cannot be written to, they stay in memory.
    Empty arrays need no file.
    """
    if folder is None or not any(np.prod(shape) for shape, _ in layout.values()):
        return _filled({k: np.full(shape, np.nan, dt) for k, (shape, dt) in layout.items()}, fill)
    if (found := _read(folder, layout)) is not None:
        return found
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        blank = {name: _blank(partial / f"{name}.npy", *spec) for name, spec in layout.items()}
    except OSError as error:
        logger.warning("signals are not cached: %s", error)
        return remember(None, layout, fill)
    try:
        arrays = _filled(blank, fill)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return arrays


def _filled(arrays: Arrays, fill: Callable[[Arrays], None]) -> Arrays:
    fill(arrays)
    for array in arrays.values():
        array.setflags(write=False)
    return arrays


def _blank(file: Path, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
    if not np.prod(shape):
        return np.empty(shape, dtype)
    array: NDArray[Any] = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    array[:] = np.nan
    return array


def _read(folder: Path, layout: Layout) -> Arrays | None:
    arrays: Arrays = {}
    for name, (shape, dtype) in layout.items():
        if not np.prod(shape):
            arrays[name] = np.empty(shape, dtype)
            continue
        try:
            array = np.load(folder / f"{name}.npy", mmap_mode="r")
        except (OSError, ValueError):
            return None
        if array.shape != shape or array.dtype != dtype:
            return None
        arrays[name] = array
    return arrays
