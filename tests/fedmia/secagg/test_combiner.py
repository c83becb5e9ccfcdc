"""Whatever is lost or false: the exact sum of the survivors, or no sum at all."""

import numpy as np
import pytest
from executions import KEYS, MASK, SHARES, STAYS, UNMASK, VOUCH, Crew, plain_sum, small, words_of
from hypothesis import event, given, settings
from hypothesis import strategies as st

from fedmia.secagg.combiner import Execution, add_up, check_keys
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.party import Peer
from fedmia.secagg.protocol import Protocol

NODES = [11, 22, 33, 44, 55]


@st.composite
def executions(draw):
    """A protocol, its clients, and the stage at which each of them is lost."""
    malicious = draw(st.booleans())
    n = draw(st.integers(4 if malicious else 3, 9))
    k = n - 1 if malicious else draw(st.sampled_from([None, n - 1, *range(2, n - 1, 2)]))
    settings = {"corrupt": 0.0, "dropout": draw(st.sampled_from([0.0, 0.25, 0.45]))}
    degree = k or n - 1
    if malicious:
        settings["dropout"] = 0.0
    least = n // 2 + 1 if malicious else 2
    t = draw(st.integers(least, degree))
    try:
        protocol = Protocol(n, neighbors=k, threshold=t, malicious_server=malicious, **settings)
    except ValueError:
        protocol = Protocol(n, neighbors=n - 1, threshold=t, **settings)
    nodes = draw(st.lists(st.integers(0, 2**62), min_size=n, max_size=n, unique=True))
    stage = st.sampled_from([STAYS] * 8 + [KEYS, SHARES, MASK, VOUCH, UNMASK])
    return protocol, nodes, {node: draw(stage) for node in nodes}


def must_succeed(protocol, nodes, lost):
    """Count who is left at every stage of a complete graph."""
    t = protocol.shares_needed
    left = [[n for n in nodes if lost[n] > stage] for stage in range(STAYS)]
    checked = left[VOUCH] if protocol.malicious_server else left[MASK]
    enough = min(map(len, (left[SHARES], left[MASK], checked))) > t
    return enough and all(len(set(left[UNMASK]) - {n}) >= t for n in left[MASK])


@settings(max_examples=120, deadline=None)
@given(executions(), st.sampled_from([np.uint32, np.uint64]))
def test_the_sum_is_that_of_the_survivors_exactly_or_there_is_none(case, dtype):
    protocol, nodes, lost = case
    words = words_of(nodes, dtype)
    complete = protocol.degree == len(nodes) - 1
    try:
        total, survivors = Crew(protocol, nodes, lost).run(words)
    except ProtocolError:
        event("abandoned")
        assert not complete or not must_succeed(protocol, nodes, lost)
        return
    event("opened")
    assert survivors == {n for n in nodes if lost[n] > MASK}
    assert len(survivors) > protocol.shares_needed
    np.testing.assert_array_equal(total, plain_sum(words, survivors), strict=True)
    assert not complete or must_succeed(protocol, nodes, lost)


@pytest.mark.parametrize("malicious", [False, True])
@pytest.mark.parametrize("stage", [KEYS, SHARES, MASK, VOUCH, UNMASK])
def test_one_client_may_be_lost_at_any_stage(stage, malicious):
    protocol = Protocol(7, neighbors=6, threshold=5, malicious_server=malicious)
    nodes = list(range(1, 8))
    words = words_of(nodes)
    total, survivors = Crew(protocol, nodes, {4: stage}).run(words)
    assert survivors == set(nodes) - ({4} if stage <= MASK else set())
    np.testing.assert_array_equal(total, plain_sum(words, survivors))


def test_what_a_client_sends_is_not_its_words_and_differs_in_every_execution():
    words = words_of(NODES, length=1000)
    first, second = Crew(small(), NODES), Crew(small(), NODES)
    first.begin(), second.begin()
    for node in NODES:
        a, b = (crew.masked(node, words[node]) for crew in (first, second))
        assert np.mean(a == words[node]) < 0.01
        assert np.mean(a == b) < 0.01


def test_masks_between_different_models_do_not_cancel():
    words = {n: np.zeros(50, np.uint32) for n in NODES}
    total, _ = Crew(small(), NODES, models={22: b"x" * 32}).run(words)
    assert np.mean(total == 0) < 0.1


def opened(crew, change):
    """Run an execution with changed shares; return its sum, and what it should be."""
    words = words_of(NODES)
    survivors = crew.begin()
    total = crew.total(words, survivors)
    own, of_keys = crew.unmasked(survivors)
    change(own, of_keys)
    crew.execution.unmask(total, survivors, own, of_keys, b"m" * 32)
    return total, plain_sum(words, survivors)


def lies(liar, share=b"\x01" * 33):
    def change(*given):
        for shares in given:
            for by in shares.values():
                if liar in by:
                    by[liar] = share

    return change


@pytest.mark.parametrize("liar", NODES)
@pytest.mark.parametrize("share", [b"\x01" * 33, b"\x00" * 33, b"\xff" * 33, b"", b"short"])
def test_one_liar_at_unmask_is_passed_over_where_shares_are_to_spare(liar, share):
    total, expected = opened(Crew(small(threshold=3), NODES), lies(liar, share))
    np.testing.assert_array_equal(total, expected)


def test_a_liar_about_a_lost_clients_key_is_passed_over():
    total, expected = opened(Crew(small(threshold=2), NODES, {55: MASK}), lies(11))
    np.testing.assert_array_equal(total, expected)


def test_a_liar_without_a_share_to_spare_ends_the_round():
    crew = Crew(small(threshold=4), NODES)
    with pytest.raises(ProtocolError, match="no 4 shares of a secret of node 22 fit together"):
        opened(crew, lambda own, _: own[22].update({11: b"\x01" * 33}))


def test_too_few_shares_end_the_round():
    crew = Crew(small(threshold=3), NODES)
    with pytest.raises(ProtocolError, match=r"2 shares of a secret of node 33: expected .*=3"):
        opened(crew, lambda own, _: [own[33].pop(node) for node in (11, 22)])


def test_shares_from_those_who_are_no_neighbours_are_not_counted():
    protocol = Protocol(8, corrupt=0.0, neighbors=4, threshold=3, dropout=0.2)
    nodes = list(range(8))
    crew = Crew(protocol, nodes)
    words = words_of(nodes)
    survivors = crew.begin()
    total = crew.total(words, survivors)
    own, of_keys = crew.unmasked(survivors)
    for node in nodes:
        for other in set(nodes) - {node, *crew.execution.graph[node]}:
            own[node][other] = b"\x05" * 33
    crew.execution.unmask(total, survivors, own, of_keys, b"m" * 32)
    np.testing.assert_array_equal(total, plain_sum(words, nodes))


@pytest.mark.parametrize("change", ["one less", "one more", "a stranger", "not in the graph"])
def test_shares_for_other_than_the_neighbours_are_refused(change):
    crew = Crew(small(), NODES)
    crew.execution.admit(crew.advertise())
    sealed = {n: b"" for n in NODES if n != 11}
    node = 11
    if change == "one less":
        del sealed[22]
    elif change == "a stranger":
        sealed[99] = sealed.pop(22)
    elif change == "one more":
        sealed[99] = b""
    else:
        node = 99
    with pytest.raises(ProtocolError, match=f"node {node}: expected shares for its neighbours"):
        crew.execution.take_shares(node, sealed, b"")
    assert not crew.execution.sealed


def test_a_sparse_graph_is_not_opened_when_more_are_lost_than_it_was_made_for():
    # 10 clients, 1 corrupt, at most 2 lost: with 7 the graph of the honest might fall apart
    protocol = Protocol(10, corrupt=0.1, neighbors=4, threshold=2, dropout=0.2)
    with pytest.raises(ProtocolError, match="7 clients sent a masked update: expected at least 8"):
        Crew(protocol, range(10), {0: MASK, 1: MASK, 2: MASK}).run(words_of(range(10)))
    protocol = Protocol(10, corrupt=0.1, neighbors=9, threshold=2, dropout=0.2)
    _, survivors = Crew(protocol, range(10), {0: MASK, 1: MASK, 2: MASK}).run(words_of(range(10)))
    assert len(survivors) == 7


@pytest.mark.parametrize(("node", "lost"), [(5, {6, 7}), (0, {0, 1, 2})])
def test_no_share_is_asked_for_where_one_secret_cannot_be_had(node, lost):
    # one client, a survivor or a lost one, has but 2 neighbours left of the 3 it takes
    protocol = Protocol(12, corrupt=0.0, neighbors=4, threshold=3, dropout=0.25)
    graph = dict.fromkeys(range(12), (8, 9, 10, 11)) | {0: (1, 2, 3, 4), 5: (6, 7, 8, 9)}
    sealed = {n: {} for n in graph}
    execution = Execution(protocol, 1, graph=graph, sealed=sealed)
    execution.settle(set(graph))
    execution.settle(set(graph) - {1})
    said = f"2 neighbours of node {node} sent a masked update: expected at least threshold=3"
    with pytest.raises(ProtocolError, match=said):
        execution.settle(set(graph) - lost)
    if node in lost:
        del sealed[node]  # its key is in no mask
        execution.settle(set(graph) - lost)


@pytest.mark.parametrize("key", [b"", b"\x07" * 31, bytes(32), (1).to_bytes(32, "little")])
def test_keys_with_which_nobody_can_agree_are_found_at_the_door(key):
    good = Crew(small(), NODES).advertise()[11]
    check_keys(good)
    for peer in (Peer(1, 1, key, good.share_key), Peer(1, 1, good.mask_key, key)):
        with pytest.raises(ProtocolError, match="malformed or of low order"):
            check_keys(peer)


def test_words_of_another_length_or_type_are_not_added():
    total = add_up(None, np.ones(3, np.uint32))
    for words in (np.ones(4, np.uint32), np.ones(3, np.uint64), np.ones((3, 1), np.uint32)):
        with pytest.raises(ProtocolError, match="expected"):
            add_up(total, words)
    np.testing.assert_array_equal(total, [1, 1, 1])
    first = np.full(3, 2**32 - 1, np.uint32)
    np.testing.assert_array_equal(add_up(add_up(None, first), total), [0, 0, 0])
    np.testing.assert_array_equal(first, 2**32 - 1)
