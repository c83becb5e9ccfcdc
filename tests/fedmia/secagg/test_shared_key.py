"""The clients' common key: in a simulation it goes with the mod, on real nodes it is in a file."""

import pickle

import pytest

from fedmia.secagg.ckks import new_key
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.shared_key import SharedKey, name_of


def test_a_simulated_key_is_fresh_and_travels_to_other_processes():
    keys, others = SharedKey(), SharedKey()

    assert pickle.loads(pickle.dumps(keys)).of({}) == keys.of({})
    assert keys.of({}) != others.of({})
    assert str(keys) == "SharedKey(provisioned=False)"


def test_a_provisioned_key_is_what_is_in_the_nodes_file(tmp_path):
    file, key = tmp_path / "clients.key", new_key()
    file.write_bytes(key)

    assert SharedKey(provisioned=True).of({"homomorphic-key": str(file)}) == key


@pytest.mark.parametrize(
    ("node_config", "message"),
    [
        ({}, "node config: expected homomorphic-key, a file"),
        ({"homomorphic-key": "/nowhere/key"}, "/nowhere/key: expected a secret key"),
    ],
)
def test_a_node_without_its_file_says_so(node_config, message):
    with pytest.raises(ProtocolError, match=message):
        SharedKey(provisioned=True).of(node_config)


def test_keys_are_named_without_being_told():
    keys = [new_key(), new_key()]

    assert len({name_of(key) for key in keys}) == 2
    assert all(len(name_of(key)) == 16 and name_of(key) not in key for key in keys)
