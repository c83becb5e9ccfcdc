"""Between Flower's serialised arrays and numpy, without parsing a header twice.

Flower stores each array as the bytes of an ``.npy`` file. Its header repeats what the ``Array``
already says of dtype and shape, so both directions can go around ``numpy.save`` and
``numpy.load``; what is not a plain C-ordered little-endian array takes the ordinary road.
"""

from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from fedmia.records import Params

_STYPE = "numpy.ndarray"
_C_ORDER = b"'fortran_order': False"


@lru_cache(maxsize=1024)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


def encode(array: NDArray[Any]) -> Array:
    """Return the Flower array with the same bytes that ``Array(array)`` would give."""
    array = np.asarray(array)
    if array.flags.fnc or array.dtype.hasobject:
        return Array(array)
    dtype = str(array.dtype)
    return Array(dtype, array.shape, _STYPE, _header(dtype, array.shape) + array.tobytes())


def decode(array: Array) -> NDArray[Any]:
    """Return the array's values, read-only and without a copy where the bytes allow it."""
    data = array.data
    start = 10 + int.from_bytes(data[8:10], "little")
    if array.stype != _STYPE or data[6:7] != b"\x01" or _C_ORDER not in data[10:start]:
        return array.numpy()
    dtype = np.dtype(array.dtype)
    if data[10:start].find(dtype.str.encode()) < 0:
        return array.numpy()
    return np.frombuffer(data, dtype, offset=start).reshape(tuple(array.shape))


def to_record(params: Params) -> ArrayRecord:
    """Return named arrays as the record that a Flower message carries."""
    record = ArrayRecord()
    for name, value in params.items():
        record[name] = encode(value)
    return record


def to_params(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Return the named arrays of a record, read-only where no copy was needed."""
    return {name: decode(array) for name, array in record.items()}
