import json

import numpy as np
import pytest

from fedmia.errors import ConfigError
from fedmia.split import Split
from fedmia.truth import Truth

NODES = {2**61 + 3: 1, 12: 0}


def split():
    shards = (np.array([4, 1]), np.array([2, 7]))
    return Split(shards, np.array([0, 3]), np.array([5]), "0" * 64)


def test_truth_survives_the_disk(tmp_path):
    Truth(NODES, split()).save(tmp_path)

    loaded = Truth.load(tmp_path)

    assert loaded.nodes == NODES
    assert [s.tolist() for s in loaded.split.shards] == [[4, 1], [2, 7]]
    assert loaded.split.nonmembers.tolist() == [0, 3]
    assert loaded.split.auxiliary.tolist() == [5]
    assert loaded.split.sha256 == "0" * 64


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{", b"[1, 2]", b"3", b'{"a": 0}', b'{"1": null}', b'{"1": []}', b"\xff\xfe\x00"],
    ids=str,
)
def test_a_missing_or_broken_node_list_is_one_line_with_its_name(tmp_path, content):
    Truth(NODES, split()).save(tmp_path)
    file = tmp_path / "nodes.json"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)

    with pytest.raises(ConfigError, match=r"nodes\.json") as caught:
        Truth.load(tmp_path)

    assert "\n" not in str(caught.value)


def test_a_missing_split_is_named(tmp_path):
    (tmp_path / "nodes.json").write_text(json.dumps({"1": 0}))

    with pytest.raises(ConfigError, match=r"split\.npz"):
        Truth.load(tmp_path)
