import pickle
from io import BytesIO

import numpy as np
import pytest
from flwr.app import Array
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedmia.arrays import Block, decode, encode, to_params, to_record

GRID = np.arange(24).reshape(4, 6)

ARRAYS = {
    "float32": GRID.astype(np.float32),
    "float64": GRID / 7,
    "float16": GRID.astype(np.float16),
    "int64": GRID.astype(np.int64),
    "uint8": GRID.astype(np.uint8),
    "bool": GRID % 2 == 0,
    "0-d float": np.array(0.5, dtype=np.float32),
    "0-d int": np.array(7),
    "empty": np.zeros((0,), dtype=np.float32),
    "empty matrix": np.zeros((3, 0, 2), dtype=np.float64),
    "one element": np.ones((1, 1), dtype=np.float32),
    "strided": GRID.astype(np.float32)[::2, ::3],
    "reversed": GRID.astype(np.float32)[::-1],
    "transposed": GRID.astype(np.float32).T,
    "fortran": np.asfortranarray(GRID.astype(np.float64)),
    "big endian": GRID.astype(">f4"),
    "nan and infinity": np.array([np.nan, np.inf, -np.inf, -0.0]),
}


def npy(array, version=None):
    buffer = BytesIO()
    np.lib.format.write_array(buffer, array, version=version, allow_pickle=False)
    return Array(str(array.dtype), array.shape, "numpy.ndarray", buffer.getvalue())


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_encoding_gives_the_bytes_and_the_description_that_flower_gives(array):
    ours, theirs = encode(array), Array(array)

    assert ours.data == theirs.data
    assert (ours.dtype, ours.shape, ours.stype) == (theirs.dtype, theirs.shape, theirs.stype)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)], ids="v{0[0]}".format)
@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_decoding_reads_every_npy_that_numpy_wrote(array, version):
    stored = npy(array, version)

    decoded = decode(stored)

    assert same(decoded, stored.numpy())
    assert same(decoded, array)


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        dtype=st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_, ">f8", ">i4"]),
        shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    st.randoms(use_true_random=False),
)
def test_any_array_in_any_memory_order_survives_the_round_trip(array, random):
    axes = list(range(array.ndim))
    random.shuffle(axes)
    array = array.transpose(axes)

    assert encode(array).data == Array(array).data
    assert same(decode(encode(array)), array)
    assert same(decode(Array(array)), array)


def test_decoding_copies_nothing_where_it_need_not():
    lazy, stored = encode(ARRAYS["float32"]), Array(ARRAYS["float32"])

    assert decode(lazy) is decode(lazy)
    assert np.shares_memory(decode(stored), np.frombuffer(stored.data, np.uint8))
    assert not decode(lazy).flags.writeable
    assert not decode(stored).flags.writeable


def test_what_happens_to_the_source_or_to_a_copy_does_not_reach_the_array():
    source = np.ones(3)
    stored = encode(source)
    source[:] = 7
    stored.numpy()[:] = 8

    assert decode(stored).tolist() == [1, 1, 1]
    assert stored.numpy().flags.writeable


def test_between_processes_the_values_travel_out_of_band():
    buffers: list[pickle.PickleBuffer] = []
    stored = encode(np.arange(1000.0))
    head = pickle.dumps(stored, protocol=5, buffer_callback=buffers.append)

    assert len(head) < 500
    assert len(buffers) == 1
    assert same(decode(pickle.loads(head, buffers=buffers)), np.arange(1000.0))
    assert pickle.loads(pickle.dumps(stored)).data == stored.data


def test_equal_headers_do_not_mix_up_arrays_of_equal_size():
    a, b = np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32)
    c, d = np.zeros((2, 3), np.int32), np.zeros(6, np.float32)

    assert [decode(encode(x)).shape for x in (a, b, c, d)] == [(2, 3), (3, 2), (2, 3), (6,)]
    assert decode(encode(c)).dtype == np.int32


def test_objects_are_refused_and_not_sent_as_addresses():
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        encode(np.array([{"a": 1}], dtype=object))


@pytest.mark.parametrize("keep", [0, 5, 20, 128 + 3, 128 + 8])
def test_a_payload_that_was_cut_off_is_refused(keep):
    stored = encode(ARRAYS["float32"])
    cut = Array(stored.dtype, stored.shape, stored.stype, stored.data[:keep])

    with pytest.raises((ValueError, EOFError)):
        decode(cut)


def test_another_serialisation_is_refused():
    with pytest.raises(TypeError, match="torch"):
        decode(Array("float32", (1,), "torch.tensor", b"1234"))


def test_records_keep_names_order_and_values():
    params = {"z.weight": ARRAYS["float32"], "a.bias": ARRAYS["float64"], "m": ARRAYS["0-d int"]}

    found = to_params(to_record(params))

    assert list(found) == ["z.weight", "a.bias", "m"]
    assert all(same(found[k], params[k]) for k in params)


def test_a_block_gives_room_that_does_not_overlap_and_more_when_it_is_full():
    params = {"a": np.zeros((3, 5), np.float32), "b": np.array(True), "c": np.zeros(7)}
    room = Block.for_copies(params, 2)

    taken = [room(v.shape, v.dtype) for _ in range(3) for v in params.values()]
    for number, array in enumerate(taken):
        array[...] = number % 2 if array.dtype == bool else number

    assert [a.shape for a in taken] == [v.shape for v in params.values()] * 3
    assert [a.dtype for a in taken] == [v.dtype for v in params.values()] * 3
    assert all((a == (n % 2 if a.dtype == bool else n)).all() for n, a in enumerate(taken))
    owners = {id(a.base.base if a.base is not None else a) for a in taken[:6]}
    assert len(owners) == 1, "two copies fit into one piece of memory"
