from collections import Counter
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln

from fedmia.errors import ConfigError
from fedmia.secagg import graph, odds
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.graph import neighbours

SEED = bytes(range(32))
seeds = st.binary(min_size=32, max_size=32)


def connected(adjacent, nodes):
    left = set(nodes)
    front = [left.pop()] if left else []
    while front:
        found = [v for v in adjacent[front.pop()] if v in left]
        left.difference_update(found)
        front += found
    return not left


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=3, max_size=40, unique=True), seeds, st.data())
def test_every_graph_is_symmetric_regular_connected_and_without_loops(nodes, seed, data):
    degree = data.draw(st.integers(2, len(nodes) + 1))
    adjacent = neighbours(nodes, degree, seed)
    assert set(adjacent) == set(nodes)
    expected = min(degree + (degree % 2 and len(nodes) % 2), len(nodes) - 1)
    for u, around in adjacent.items():
        assert len(set(around)) == len(around) == expected
        assert u not in around
        assert list(around) == sorted(around)
        assert all(u in adjacent[v] for v in around)
    assert connected(adjacent, nodes)


@pytest.mark.parametrize(("n", "degree"), [(9, 4), (8, 3), (9, 6), (8, 5), (10, 4)])
def test_removing_fewer_than_k_nodes_never_disconnects(n, degree):
    adjacent = neighbours(range(n), degree, SEED)
    for count in range(degree):
        for lost in combinations(range(n), count):
            assert connected(adjacent, set(range(n)) - set(lost))
    apart = [set(range(n)) - set(around) for around in adjacent.values()]
    assert not any(connected(adjacent, rest) for rest in apart)


def test_the_ring_in_its_own_order_is_the_one_worked_out_by_hand(monkeypatch):
    monkeypatch.setattr(graph, "_shuffle", lambda ring, seed: None)
    six = {10: (20, 30, 50, 60), 20: (10, 30, 40, 60), 30: (10, 20, 40, 50)}
    found = neighbours([10, 20, 30, 40, 50, 60], 4, SEED)
    assert {u: found[u] for u in six} == six
    opposite = neighbours([10, 20, 30, 40, 50, 60], 3, SEED)
    assert opposite[10] == (20, 40, 60)
    assert opposite[50] == (20, 40, 60)


def test_the_graph_depends_on_the_seed_and_the_nodes_but_not_on_their_order():
    wanted = neighbours(range(30), 6, SEED)
    assert neighbours(range(29, -1, -1), 6, SEED) == wanted
    assert neighbours(range(30), 6, SEED[::-1]) != wanted


def test_the_shuffle_reads_the_key_stream_as_the_swaps_of_fisher_and_yates():
    # RFC 8439, Appendix A.1: the zero key's stream begins 76b8e0ada0f13d90 405d6ae55386bd28
    ring = ["a", "b", "c"]
    graph._shuffle(ring, bytes(32))
    expected = ["a", "b", "c"]
    first, second = 0x903DF1A0ADE0B876 % 3, 0x28BD8653E56A5D40 % 2
    expected[2], expected[first] = expected[first], expected[2]
    expected[1], expected[second] = expected[second], expected[1]
    assert ring == expected


def test_words_of_the_uneven_rest_are_drawn_again(monkeypatch):
    class Stream:
        def __init__(self):
            self.words = iter([2**64 - 1, 4, 1])

        def update(self, zeros):
            assert zeros == bytes(8)
            return next(self.words).to_bytes(8, "little")

    monkeypatch.setattr(graph, "key_stream", lambda seed: Stream())
    ring = ["a", "b", "c"]
    graph._shuffle(ring, SEED)
    # 2^64 - 1 is a multiple of 3, hence refused at the bound 3; 4 mod 3 = 1; 1 mod 2 = 1
    assert ring == ["a", "c", "b"]


def test_every_order_of_the_ring_is_as_likely():
    counts = Counter()
    for i in range(2400):
        ring = [0, 1, 2, 3]
        graph._shuffle(ring, i.to_bytes(32, "big"))
        counts[tuple(ring)] += 1
    assert set(counts) == set(permutations(range(4)))
    chi_square = sum((c - 100) ** 2 / 100 for c in counts.values())
    assert chi_square < 55  # 23 degrees of freedom: exceeded in 2 of 10,000 streams


def test_a_degree_of_all_others_or_more_is_the_complete_graph():
    assert neighbours([3, 1, 2], 2, SEED) == {1: (2, 3), 2: (1, 3), 3: (1, 2)}
    assert neighbours([5, 6], 9, SEED) == {5: (6,), 6: (5,)}
    assert neighbours([5], 0, SEED) == {5: ()}
    assert neighbours([], 2, SEED) == {}


@pytest.mark.parametrize("degree", [-2, 0, 1])
def test_a_degree_that_leaves_the_graph_in_pieces_is_refused(degree):
    with pytest.raises(ConfigError, match=f"degree={degree}: expected 2 or more, or all 3 others"):
        neighbours([1, 2, 3, 4], degree, SEED)


def test_a_node_that_comes_twice_is_refused():
    with pytest.raises(ProtocolError, match="twice"):
        neighbours([1, 2, 1, 4], 2, SEED)


@pytest.mark.parametrize(("n", "k"), [(7, 2), (9, 4), (10, 4), (12, 6)])
def test_no_more_losses_disconnect_a_graph_than_the_union_bound_says(n, k):
    adjacent = neighbours(range(n), k, SEED)
    factorials = gammaln(np.arange(n + 1) + 1.0)
    for bad in range(n - 1):
        lost = [set(range(n)) - set(chosen) for chosen in combinations(range(n), bad)]
        share = sum(not connected(adjacent, rest) for rest in lost) / len(lost)
        bound = np.exp(odds._log_split(factorials, bad, k))
        assert share <= bound * (1 + 1e-9)
        assert bad != k or share == pytest.approx(bound)
