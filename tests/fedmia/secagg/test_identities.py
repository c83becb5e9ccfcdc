import pytest

from fedmia.errors import ConfigError
from fedmia.secagg import keys
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.identities import OWN, Identities


def provision(folder, count=3):
    """Write key files as an operator would; return the paths of the private ones."""
    (folder / "public").mkdir()
    private = []
    for k in range(count):
        key = keys.new_signing_key()
        (folder / "public" / f"{k}.pub").write_text(keys.verify_key_of(key).hex() + "\n")
        private.append(folder / f"{k}.key")
        private[k].write_text(key.hex())
    return private


def test_derived_keys_are_those_that_everybody_knows():
    registry = Identities(clients=4, seed=1)
    each = [registry.of({"partition-id": k}) for k in range(4)]
    assert {i.public for i in each} == each[0].known
    assert len(each[0].known) == 4
    assert not each[0].known & Identities(clients=4, seed=2).of({"partition-id": 0}).known
    assert Identities(clients=4, seed=1).of({"partition-id": 3}) == each[3]


def test_one_beyond_the_registry_is_not_known():
    stranger = Identities(clients=4, seed=1).of({"partition-id": 4})
    assert stranger.public not in stranger.known


def test_keys_are_read_from_files(tmp_path):
    private = provision(tmp_path)
    registry = Identities(str(tmp_path / "public"))
    each = [registry.of({OWN: str(file)}) for file in private]
    assert {i.public for i in each} == each[0].known == each[1].known


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"folder=.*: expected a folder with a \*\.pub file"):
        Identities(str(tmp_path / "no"))


@pytest.mark.parametrize("text", ["", "zz", "00" * 31, "00" * 33, "not hexadecimal"])
def test_a_file_without_a_key_is_named(tmp_path, text):
    private = provision(tmp_path)
    registry = Identities(str(tmp_path / "public"))
    private[1].write_text(text)
    with pytest.raises(ProtocolError, match=r"1\.key: .*expected a key"):
        registry.of({OWN: str(private[1])})
    (tmp_path / "public" / "2.pub").write_text(text)
    with pytest.raises(ProtocolError, match=r"2\.pub: .*expected a key"):
        registry.of({OWN: str(private[0])})


def test_a_node_that_does_not_say_where_its_key_is_is_told_how(tmp_path):
    provision(tmp_path)
    registry = Identities(str(tmp_path / "public"))
    with pytest.raises(ProtocolError, match="node config: expected secagg-identity, a file"):
        registry.of({"partition-id": 0})
    with pytest.raises(ProtocolError, match=r"no\.key: expected a key in hexadecimal"):
        registry.of({OWN: str(tmp_path / "no.key")})
