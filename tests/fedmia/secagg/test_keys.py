import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmia.secagg import keys
from fedmia.secagg.errors import ProtocolError

hexa = bytes.fromhex

# RFC 7748, Section 6.1
ALICE = hexa("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
ALICE_PUBLIC = hexa("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
BOB = hexa("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
BOB_PUBLIC = hexa("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
SHARED = hexa("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")

# RFC 8439, Section 2.8.2
AEAD_KEY = bytes(range(0x80, 0xA0))
AEAD_NONCE = hexa("070000004041424344454647")
AEAD_ASSOCIATED = hexa("50515253c0c1c2c3c4c5c6c7")
AEAD_PLAIN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it."
)
AEAD_CIPHER = hexa(
    "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
    "3dbea45e8ca9671282fafb69da92728b"
    "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58"
    "fab324e4fad675945585808b4831d7bc"
    "3ff4def08e4b7a9de576d26586cec64b6116"
)
AEAD_TAG = hexa("1ae10b594f09e26a7e902ecbd0600691")

# RFC 8032, Section 7.1, tests 1 and 2
SIGNED = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
]

LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),  # -1
    (2**255 - 19).to_bytes(32, "little"),  # 0, not reduced
    hexa("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    hexa("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]


def hkdf(secret, info):
    """RFC 5869 for one block of output and no salt, with the standard library."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def test_public_keys_are_those_of_rfc_7748():
    assert keys.public_of(ALICE) == ALICE_PUBLIC
    assert keys.public_of(BOB) == BOB_PUBLIC


@pytest.mark.parametrize(
    ("private", "public"), [(ALICE, BOB_PUBLIC), (BOB, ALICE_PUBLIC)], ids=["alice", "bob"]
)
def test_both_ends_agree_on_the_derived_secret_of_rfc_7748(private, public):
    assert keys.agree(private, public, b"masks") == hkdf(SHARED, b"masks")


def test_derivation_is_that_of_rfc_5869_test_case_3():
    expected = hexa("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d")
    assert keys._derive(b"\x0b" * 22, b"") == expected


def test_another_context_gives_another_key():
    agreed = {keys.agree(ALICE, BOB_PUBLIC, info) for info in (b"", b"a", b"b", b"ab")}
    assert len(agreed) == 4


@pytest.mark.parametrize("public", LOW_ORDER, ids=bytes.hex)
def test_a_public_key_of_low_order_is_refused(public):
    with pytest.raises(ProtocolError, match="low order"):
        keys.agree(ALICE, public, b"")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_public_key_of_another_length_is_refused(length):
    with pytest.raises(ProtocolError, match="malformed"):
        keys.agree(ALICE, bytes(length), b"")


def test_fresh_keys_differ_and_agree():
    first, second = keys.new_private(), keys.new_private()
    assert len(first) == 32
    assert first != second
    one = keys.agree(first, keys.public_of(second), b"x")
    assert one == keys.agree(second, keys.public_of(first), b"x")
    assert len(one) == 32


def test_agreeing_with_many_at_once_gives_what_agreeing_with_each_does():
    publics = [keys.public_of(keys.new_private()) for _ in range(3)]
    each = [keys.agree(ALICE, public, b"x") for public in publics]
    assert keys.agree_all(ALICE, publics, b"x") == each
    assert keys.agree_all(ALICE, [], b"x") == []


def test_one_bad_key_among_many_is_refused():
    with pytest.raises(ProtocolError, match="low order"):
        keys.agree_all(ALICE, [BOB_PUBLIC, bytes(32)], b"x")


def test_the_sealed_message_of_rfc_8439_opens():
    sealed = AEAD_NONCE + AEAD_CIPHER + AEAD_TAG
    assert keys.unseal(AEAD_KEY, sealed, AEAD_ASSOCIATED) == AEAD_PLAIN


def test_a_message_sealed_under_the_nonce_of_rfc_8439_is_its_message(monkeypatch):
    monkeypatch.setattr(keys.os, "urandom", lambda n: AEAD_NONCE[:n])
    sealed = keys.seal(AEAD_KEY, AEAD_PLAIN, AEAD_ASSOCIATED)
    assert sealed == AEAD_NONCE + AEAD_CIPHER + AEAD_TAG


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_what_is_sealed_opens_again_and_no_two_sealings_are_alike(plaintext, associated):
    sealed = keys.seal(AEAD_KEY, plaintext, associated)
    assert keys.unseal(AEAD_KEY, sealed, associated) == plaintext
    assert len(sealed) == len(plaintext) + 28
    assert sealed != keys.seal(AEAD_KEY, plaintext, associated)


@given(st.binary(max_size=60), st.data())
def test_a_sealed_message_with_one_bit_changed_does_not_authenticate(plaintext, data):
    sealed = bytearray(keys.seal(AEAD_KEY, plaintext, b"to"))
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ProtocolError, match="does not authenticate"):
        keys.unseal(AEAD_KEY, bytes(sealed), b"to")


@pytest.mark.parametrize("length", [0, 5, 12, 27])
def test_a_cut_message_does_not_authenticate(length):
    sealed = keys.seal(AEAD_KEY, b"", b"")[:length]
    with pytest.raises(ProtocolError, match=f"of {length} bytes does not authenticate"):
        keys.unseal(AEAD_KEY, sealed, b"")


def test_another_key_or_another_context_does_not_open_a_message():
    sealed = keys.seal(AEAD_KEY, b"share", b"from 1 to 2")
    with pytest.raises(ProtocolError, match="does not authenticate"):
        keys.unseal(hashlib.sha256(AEAD_KEY).digest(), sealed, b"from 1 to 2")
    with pytest.raises(ProtocolError, match="does not authenticate"):
        keys.unseal(AEAD_KEY, sealed, b"from 2 to 1")


@pytest.mark.parametrize(("secret", "public", "message", "signature"), SIGNED)
def test_signatures_are_those_of_rfc_8032(secret, public, message, signature):
    assert keys.verify_key_of(hexa(secret)) == hexa(public)
    assert keys.sign(hexa(secret), hexa(message)) == hexa(signature)
    keys.verify(hexa(public), hexa(signature), hexa(message))


def test_a_signature_holds_for_its_key_and_message_only():
    own, other = keys.new_signing_key(), keys.new_signing_key()
    assert own != other
    public, signature = keys.verify_key_of(own), keys.sign(own, b"alive: 1, 2")
    keys.verify(public, signature, b"alive: 1, 2")
    for wrong in [
        (public, signature, b"alive: 1, 3"),
        (keys.verify_key_of(other), signature, b"alive: 1, 2"),
        (public, bytes([signature[0] ^ 1]) + signature[1:], b"alive: 1, 2"),
        (public, signature[:-1], b"alive: 1, 2"),
        (public[:-1], signature, b"alive: 1, 2"),
    ]:
        with pytest.raises(ProtocolError, match="does not verify"):
            keys.verify(*wrong)
