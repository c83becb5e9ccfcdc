"""Between Flower's serialised arrays and numpy, without serialising what nobody reads as bytes.

Flower stores each array as the bytes of an ``.npy`` file. Between processes of one machine that
is two copies and a parsed header too many, so what is encoded here keeps its values and makes
the bytes when a real channel (or anybody else) asks for them.
"""

import math
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from fedmia.records import Params

_STYPE = "numpy.ndarray"
_C_ORDER = b"'fortran_order': False"


_name = lru_cache(maxsize=64)(str)


@lru_cache(maxsize=1024)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


class LazyArray(Array):
    """A Flower array that holds values, read-only, and serialises them when ``data`` is read.

    Pickle protocol 5 carries the values out of band: Ray maps them from shared memory instead of
    copying them.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        self.dtype: str
        self.values: NDArray[Any]
        values.flags.writeable = False
        # Straight into the instance: Flower's own attributes run a hook each time they are set.
        self.__dict__.update(
            dtype=_name(values.dtype), shape=values.shape, stype=_STYPE, values=values
        )

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The bytes that ``Array(values)`` would hold."""
        return _header(self.dtype, self.shape) + self.values.tobytes()

    def numpy(self) -> NDArray[Any]:
        """Return a copy of the values, writable as that of any Flower array."""
        return self.values.copy()

    def __reduce__(self) -> tuple[type["LazyArray"], tuple[NDArray[Any]]]:
        return LazyArray, (self.values,)


def encode(array: NDArray[Any]) -> Array:
    """Return the Flower array with the same bytes that ``Array(array)`` would give.

    The values are copied: what happens to ``array`` afterwards does not reach the result.
    """
    array = np.asarray(array)
    if array.flags.fnc or array.dtype.hasobject:
        return Array(array)
    return LazyArray(np.array(array, order="C"))


def decode(array: Array) -> NDArray[Any]:
    """Return the array's values, read-only and without a copy where that can be had."""
    if isinstance(array, LazyArray):
        return array.values
    data = array.data
    start = 10 + int.from_bytes(data[8:10], "little")
    if array.stype != _STYPE or data[6:7] != b"\x01" or _C_ORDER not in data[10:start]:
        return array.numpy()
    dtype = np.dtype(array.dtype)
    if data[10:start].find(dtype.str.encode()) < 0:
        return array.numpy()
    return np.frombuffer(data, dtype, offset=start).reshape(tuple(array.shape))


class Block:
    """Room for many arrays in one piece, which the system hands over in pages of 2 MiB.

    Memory for the updates of a whole round, taken array by array, would cost more page faults
    than arithmetic. What no longer fits gets room of its own.
    """

    _ALIGNED = 64

    def __init__(self, nbytes: int) -> None:
        self._bytes = np.empty(nbytes, np.uint8)
        self._used = 0

    @classmethod
    def for_copies(cls, params: Params, count: int) -> "Block":
        """Return room for ``count`` times these arrays."""
        return cls(count * sum(v.nbytes + cls._ALIGNED for v in params.values()))

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array of any content, as ``numpy.empty`` does."""
        start = -(-self._used // self._ALIGNED) * self._ALIGNED
        end = start + math.prod(shape) * dtype.itemsize
        if end > len(self._bytes):
            return np.empty(shape, dtype)
        self._used = end
        return self._bytes[start:end].view(dtype).reshape(shape)


def to_record(params: Params) -> ArrayRecord:
    """Return named arrays as the record that a Flower message carries."""
    record = ArrayRecord()
    for name, value in params.items():
        record[name] = encode(value)
    return record


def to_params(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Return the named arrays of a record, read-only where no copy was needed."""
    return {name: decode(array) for name, array in record.items()}
