import pytest

from fedmia.secagg import keys
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.party import Identity, Peer, Secrets
from fedmia.secagg.protocol import context_of


def test_what_is_empty_is_left_out_of_the_record_and_comes_back():
    assert Secrets(stage="").record() == {}
    known = Secrets(b"s" * 16, 3, "shares", peers=[1, 2], channel_keys=[b"a", b"b"])
    assert known.record() == {
        "session": b"s" * 16,
        "server_round": 3,
        "stage": "shares",
        "peers": [1, 2],
        "channel_keys": [b"a", b"b"],
    }
    assert Secrets(**known.record()) == known


def test_what_is_derived_is_tied_to_the_session_and_the_round():
    assert Secrets(b"s" * 16, 3).context == context_of(b"s" * 16, 3)


def test_the_keys_of_a_peer_are_fields_of_bytes():
    assert [getattr(Peer(1, 1, b"m", b"s", b"i", b"x"), name) for name in Peer.KEYS] == [
        b"m",
        b"s",
        b"i",
        b"x",
    ]


def test_an_identity_signs_what_its_public_key_verifies():
    identity = Identity(keys.new_signing_key(), frozenset())
    keys.verify(identity.public, keys.sign(identity.signing_key, b"statement"), b"statement")
    with pytest.raises(ProtocolError, match="does not verify"):
        keys.verify(identity.public, keys.sign(identity.signing_key, b"statement"), b"another")
