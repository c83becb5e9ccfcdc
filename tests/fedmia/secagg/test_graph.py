from collections import Counter
from fractions import Fraction
from itertools import combinations, permutations
from math import ceil, comb, log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln
from scipy.stats import hypergeom

from fedmia.errors import ConfigError
from fedmia.secagg import graph
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.graph import degree_for, neighbours

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


# ---- degree and threshold ----


def chance(population, marked, drawn, hits):
    """P[Hyp in hits], with whole numbers alone."""
    ways = sum(comb(marked, x) * comb(population - marked, drawn - x) for x in hits if x <= drawn)
    return Fraction(ways, comb(population, drawn))


def safe(n, corrupt, dropout, k, t, sigma, eta):
    """(a), (b) and (c) in exact fractions."""
    c, d = ceil(Fraction(str(corrupt)) * n), ceil(Fraction(str(dropout)) * n)
    opened = n * chance(n - 1, c, k, range(t, k + 1))
    pairs = Fraction(n * (n - k - 1), 2)
    split = pairs * Fraction(comb(n - k, c + d - k) if c + d >= k else 0, comb(n, c + d))
    short = n * chance(n - 1, n - 1 - d, k, range(t))
    half = Fraction(1, 2 ** (sigma + 1))
    return opened <= half and split <= half and short <= Fraction(1, 2**eta)


@pytest.mark.parametrize(
    ("n", "corrupt", "dropout", "sigma", "eta"),
    [
        (30, 0.1, 0.1, 40, 30),
        (60, 0.2, 0.1, 20, 10),
        (100, 0.05, 0.3, 40, 30),
        (100, 0.33, 0.33, 40, 30),
        (200, 0, 0.2, 40, 30),
        (200, 0.2, 0, 40, 30),
    ],
)
def test_degree_and_threshold_are_the_smallest_that_exact_fractions_allow(
    n, corrupt, dropout, sigma, eta
):
    smallest = next(
        (k, t)
        for k in range(2, n - 1, 2)
        for t in range(2, k + 1)
        if safe(n, corrupt, dropout, k, t, sigma, eta)
    )
    assert degree_for(n, corrupt, dropout, sigma, eta) == smallest


@pytest.mark.parametrize(("n", "k"), [(7, 2), (9, 4), (10, 4), (12, 6)])
def test_no_more_losses_disconnect_a_graph_than_the_union_bound_says(n, k):
    adjacent = neighbours(range(n), k, SEED)
    factorials = gammaln(np.arange(n + 1) + 1.0)
    for bad in range(n - 1):
        lost = [set(range(n)) - set(chosen) for chosen in combinations(range(n), bad)]
        share = sum(not connected(adjacent, rest) for rest in lost) / len(lost)
        bound = np.exp(graph._log_split(factorials, bad, k))
        assert share <= bound * (1 + 1e-9)
        assert bad != k or share == pytest.approx(bound)


@pytest.mark.parametrize(("corrupt", "dropout"), [(0.05, 0.05), (0.2, 0.1), (0.33, 0.05)])
def test_the_conditions_hold_at_a_thousand_clients_by_scipys_tails(corrupt, dropout):
    n, sigma, eta = 1000, 40, 30
    k, t = degree_for(n, corrupt, dropout)
    c, d = ceil(corrupt * n), ceil(dropout * n)
    assert hypergeom.sf(t - 1, n - 1, c, k) * n <= 2.0 ** -(sigma + 1)
    assert hypergeom.sf(t - 2, n - 1, c, k) * n > 2.0 ** -(sigma + 1)
    assert hypergeom.cdf(t - 1, n - 1, n - 1 - d, k) * n <= 2.0**-eta
    runs = hypergeom.pmf(k, n, c + d, k)
    assert runs * n * (n - k - 1) / 2 <= 2.0 ** -(sigma + 1)


@pytest.mark.parametrize(
    ("n", "corrupt", "dropout", "published"),
    [
        (100, 0.33, 0.33, (68, 34)),
        (1_000, 0.33, 0.33, (286, 150)),
        (10_000, 0.33, 0.33, (422, 221)),
        (100_000, 0.33, 0.33, (480, 251)),
        (1_000, 0.05, 0.33, (72, 24)),
        (10_000, 0.05, 0.33, (86, 29)),
        (1_000, 0.33, 0.05, (78, 60)),
        (10_000, 0.33, 0.05, (92, 70)),
    ],
)
def test_the_figures_are_those_that_a_published_implementation_is_tested_against(
    n, corrupt, dropout, published
):
    # google-parfait/federated-compute, fcp/secagg/server/graph_parameter_finder_test.cc: the
    # "semihonest" instances, with 40 bits of security and 20 of correctness
    assert degree_for(n, corrupt, dropout, sigma=40, eta=20) == published


def test_more_colluders_or_more_losses_never_need_fewer_neighbours():
    shares = [0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
    degrees = [[degree_for(300, c, d)[0] for d in shares] for c in shares]
    for row in [*degrees, *zip(*degrees, strict=True)]:
        assert list(row) == sorted(row)
        assert row[0] < row[-1]


def test_more_bits_never_need_fewer_neighbours():
    by_sigma = [degree_for(1000, 0.1, 0.1, sigma, 30)[0] for sigma in (10, 20, 40, 80)]
    by_eta = [degree_for(1000, 0.1, 0.1, 40, eta)[0] for eta in (5, 10, 20, 40, 80)]
    assert by_sigma == sorted(by_sigma)
    assert by_eta == sorted(by_eta)
    assert by_sigma[0] < by_sigma[-1]
    assert by_eta[0] < by_eta[-1]


@pytest.mark.parametrize(
    ("corrupt", "expected"),
    [
        (0.05, {1_000: (34, 18), 10_000: (38, 21), 100_000: (40, 22)}),
        (0.1, {1_000: (52, 28), 10_000: (60, 32), 100_000: (66, 35)}),
        (0.2, {1_000: (112, 59), 10_000: (136, 71), 100_000: (150, 78)}),
    ],
)
def test_the_degree_grows_like_the_logarithm_of_the_number_of_clients(corrupt, expected):
    found = {n: degree_for(n, corrupt, corrupt) for n in expected}
    assert found == expected
    per_bit = [k / log2(n) for n, (k, _) in found.items()]
    assert per_bit == sorted(per_bit, reverse=True)


def test_without_a_sparse_graph_that_is_safe_the_graph_is_complete():
    # 2 of 5 collude: in the ring of k = 2 both neighbours may; in the complete graph t > 5/2
    assert degree_for(5, 0.4, 0.2) == (4, 3)
    # 6 of 10 collude, which is more than half: t = 7, and two of the nine others may be lost
    assert degree_for(10, 0.6, 0.2) == (9, 7)
    assert degree_for(3, 0, 0) == (2, 2)


def test_losses_below_the_threshold_of_the_complete_graph_are_refused():
    with pytest.raises(ConfigError, match=r"dropout=0.3: expected a share that leaves 7 of 9 neig"):
        degree_for(10, 0.6, 0.3)


def test_a_share_counts_as_it_is_written_and_is_rounded_up():
    assert graph._count(0.29, 100) == 29  # 0.29 * 100 = 28.999999999999996
    assert graph._count(0.07, 100) == 7  # 0.07 * 100 = 7.000000000000001
    assert graph._count(0.05, 10) == 1
    assert graph._count(0, 10) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 0.1, 0.1), "n=2: expected 3 or more clients"),
        ((10, -0.1, 0.1), "corrupt=-0.1: expected a share"),
        ((10, 1.0, 0.1), "corrupt=1.0: expected a share"),
        ((10, 0.1, 1), "dropout=1: expected a share"),
        ((10, float("nan"), 0), "corrupt=nan: expected a share"),
        ((10, 0.1, 0.1, 0), "sigma=0: expected a number of bits above 0"),
        ((10, 0.1, 0.1, 40, -1), "eta=-1: expected a number of bits above 0"),
    ],
)
def test_values_outside_their_range_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        degree_for(*arguments)
