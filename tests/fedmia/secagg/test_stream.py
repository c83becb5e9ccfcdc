import numpy as np
import pytest

from fedmia.errors import ConfigError
from fedmia.secagg.stream import draw, fresh_stream, key_stream

# RFC 8439, appendix A.1, test vectors 1 and 2: key and nonce zero, blocks 0 and 1
BLOCKS = bytes.fromhex(
    "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
    "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
    "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
)


def test_the_stream_of_the_zero_key_is_that_of_the_rfc():
    assert key_stream(bytes(32))(16) == BLOCKS


def test_pieces_of_the_stream_join():
    words = key_stream(bytes(32))
    assert words(3) + words(0) + words(13) == BLOCKS


def test_words_are_little_endian():
    first = int.from_bytes(BLOCKS[:8], "little")
    assert draw(key_stream(bytes(32)), 2).tolist()[0] == first


def test_a_fresh_stream_is_another_each_time():
    assert not np.array_equal(draw(fresh_stream(), 4), draw(fresh_stream(), 4))


def test_a_short_key_is_refused():
    with pytest.raises(ConfigError, match="key=31 bytes: expected 32 bytes"):
        key_stream(bytes(31))
