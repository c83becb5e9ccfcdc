"""Shares: worthless but for the last one, and of use to their own party alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.keys import agree, new_private, public_of, seal
from fedmia.secagg.protocol import between
from fedmia.secagg.sharing import KEEPER, Party, Sealed, split

CONTEXT = b"an execution"


def begun(count):
    parties = [Party(number) for number in range(count)]
    for party in parties:
        party.begin(1, CONTEXT)
    return parties


def send(parties, node, words, context=CONTEXT):
    shared = words.copy()
    return split(shared, [party.key for party in parties], context, node), shared


@settings(max_examples=20, deadline=None)
@given(
    count=st.integers(2, 5),
    dtype=st.sampled_from([np.uint32, np.uint64]),
    length=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_all_shares_together_are_the_words(count, dtype, length, seed):
    words = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, length, dtype)
    parties = begun(count)
    sealed, shared = send(parties, 7, words)
    for party in parties:
        party.take(7, sealed, shared)

    shares = [party.share(7, length, dtype) for party in parties]

    assert np.array_equal(sum(shares[1:], shares[0]), words)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_all_shares_but_one_and_what_the_server_saw_are_uniform(missing):
    words = np.zeros(20_000, np.uint32)
    parties = begun(3)
    sealed, shared = send(parties, 7, words)
    for party in parties:
        party.take(7, sealed, shared)

    known = [p.share(7, len(words), np.uint32) for p in parties if p.number != missing]
    combined = known[0] + known[1]

    for seen in (shared, *known, combined, shared - combined):
        counts = np.bincount(seen.view(np.uint8), minlength=256)
        statistic = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
        assert 150 < statistic < 400  # chi-square with 255 degrees of freedom


def test_the_same_words_are_never_shared_alike():
    parties = begun(2)
    first, second = (send(parties, 7, np.zeros(8, np.uint32))[1] for _ in range(2))

    assert not np.array_equal(first, second)


def test_a_party_opens_only_what_was_sealed_for_it_in_this_execution_by_this_client():
    parties = begun(2)
    sealed, shared = send(parties, 7, np.zeros(8, np.uint32))
    swapped = Sealed(sealed.key, sealed.messages[::-1])
    stranger = Sealed(public_of(new_private()), sealed.messages)
    earlier, old = send(parties, 7, np.zeros(8, np.uint32), b"another execution")

    for node, given_, words in (
        (8, sealed, shared),
        (7, swapped, shared),
        (7, stranger, shared),
        (7, earlier, old),
    ):
        for party in parties:
            with pytest.raises(ProtocolError, match="does not authenticate"):
                party.take(node, given_, words)
    with pytest.raises(ProtocolError, match="not those that were sent"):
        parties[KEEPER].take(7, sealed, shared + np.uint32(1))


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(33), bytes(64)])
def test_a_share_that_is_no_seed_is_refused(content):
    words = np.zeros(8, np.uint32)
    private = new_private()
    for party in begun(2):
        key = agree(private, party.key, CONTEXT + b"|party")
        message = seal(key, content, between(CONTEXT, "party", 7, party.number))
        with pytest.raises(ProtocolError, match=r"not those that were sent|expected a seed of 32"):
            party.take(7, Sealed(public_of(private), (message, message)), words)


def test_a_client_has_one_share_with_a_party():
    parties = begun(2)
    for party in parties:
        sealed, shared = send(parties, 7, np.zeros(8, np.uint32))
        party.take(7, sealed, shared)
        with pytest.raises(ProtocolError, match="a second share from node 7"):
            party.take(7, sealed, shared)


def test_a_sum_is_published_once_of_enough_clients_that_all_sent_something():
    parties = begun(2)
    for node in (3, 4, 5):
        sealed, shared = send(parties, node, np.full(4, node, np.uint32))
        for party in parties:
            party.take(node, sealed, shared)

    for party in parties:
        with pytest.raises(ProtocolError, match="2 clients, expected at least min_clients=3"):
            party.publish([3, 4], 3, 4, np.uint32)
        with pytest.raises(ProtocolError, match="1 clients, expected"):
            party.publish([3, 3, 3], 3, 4, np.uint32)
        with pytest.raises(ProtocolError, match="no share from node 9"):
            party.publish([3, 4, 9], 3, 4, np.uint32)
    total = sum(party.publish([3, 4, 5], 3, 4, np.uint32) for party in parties)

    assert total.tolist() == [12] * 4
    for party in parties:
        with pytest.raises(ProtocolError, match="is out already"):
            party.publish([4, 5, 3], 3, 4, np.uint32)


def test_lists_of_survivors_that_differ_give_away_nothing():
    parties = begun(2)
    for node in (3, 4, 5):
        sealed, shared = send(parties, node, np.full(4, node, np.uint32))
        for party in parties:
            party.take(node, sealed, shared)

    total = parties[0].publish([3, 4, 5], 2, 4, np.uint32)
    total = total + parties[1].publish([3, 4], 2, 4, np.uint32)

    assert np.all(total > 1000)  # a mask is left; small with probability 2⁻²² a word


def test_a_round_is_begun_once():
    party = Party(0)
    party.begin(2, CONTEXT)

    for replayed in (1, 2):
        with pytest.raises(ProtocolError, match=f"round {replayed}: expected a later one than 2"):
            party.begin(replayed, CONTEXT)
    with pytest.raises(ProtocolError, match="is out already"):
        Party(0).publish([], 0, 1, np.uint32)
