"""Keys between two parties: agreement, sealed messages and signatures, all over bytes.

Agreement is X25519 (RFC 7748) through HKDF-SHA256 (RFC 5869), a sealed message is
ChaCha20-Poly1305 (RFC 8439), a signature Ed25519 (RFC 8032), as ``cryptography`` implements them.
Every key is 32 bytes.
"""

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedmia.secagg.errors import ProtocolError

_NONCE = 12


def new_private() -> bytes:
    """Return a fresh X25519 private key, 32 bytes."""
    return X25519PrivateKey.generate().private_bytes_raw()


def public_of(private: bytes) -> bytes:
    """Return the X25519 public key of ``private``, 32 bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, public: bytes, info: bytes) -> bytes:
    """Return the 32 bytes that both ends of a pair derive, each from its own private key.

    Parameters
    ----------
    private, public
        32 bytes each: one's own private key and the peer's public key.
    info
        What the key is for; another ``info`` gives an independent key.

    Raises
    ------
    ProtocolError
        If ``public`` is no key or a point of low order, with which the secret would be zero.
    """
    return agree_all(private, [public], info)[0]


def agree_all(private: bytes, publics: Sequence[bytes], info: bytes) -> list[bytes]:
    """Return what :func:`agree` gives with each of the public keys, in their order.

    A private key takes as long to read as to use, and is read only once here.
    """
    own = X25519PrivateKey.from_private_bytes(private)
    try:
        secrets = [own.exchange(X25519PublicKey.from_public_bytes(public)) for public in publics]
    except ValueError:
        raise ProtocolError("a peer's public key is malformed or of low order") from None
    return [_derive(secret, info) for secret in secrets]


def _derive(secret: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)


def seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Encrypt and authenticate ``plaintext``; ``associated`` is authenticated only.

    Returns a random nonce of 12 bytes, the ciphertext and a tag of 16 bytes, in one piece. Random
    nonces of 96 bits allow some 2³² messages under one key.
    """
    nonce = os.urandom(_NONCE)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, plaintext, associated)


def unseal(key: bytes, sealed: bytes, associated: bytes) -> bytes:
    """Return what :func:`seal` was given.

    Raises
    ------
    ProtocolError
        If the key, the message or ``associated`` is not the sealed one.
    """
    cipher = ChaCha20Poly1305(key)
    try:
        return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], associated)
    except (InvalidTag, ValueError):
        failed = f"a sealed message of {len(sealed)} bytes does not authenticate"
        raise ProtocolError(failed) from None


def new_signing_key() -> bytes:
    """Return a fresh Ed25519 private key, 32 bytes."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def verify_key_of(signing_key: bytes) -> bytes:
    """Return the Ed25519 public key of ``signing_key``, 32 bytes."""
    return Ed25519PrivateKey.from_private_bytes(signing_key).public_key().public_bytes_raw()


def sign(signing_key: bytes, message: bytes) -> bytes:
    """Return the Ed25519 signature of ``message``, 64 bytes."""
    return Ed25519PrivateKey.from_private_bytes(signing_key).sign(message)


def verify(verify_key: bytes, signature: bytes, message: bytes) -> None:
    """Return if ``signature`` is that of ``message``.

    Raises
    ------
    ProtocolError
        If it is not, or if ``verify_key`` is no key.
    """
    try:
        Ed25519PublicKey.from_public_bytes(verify_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise ProtocolError(f"a signature over {len(message)} bytes does not verify") from None
