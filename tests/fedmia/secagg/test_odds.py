import math
from fractions import Fraction
from functools import partial
from math import ceil, comb, log2

import pytest
from scipy.stats import hypergeom

from fedmia.errors import ConfigError
from fedmia.secagg import odds
from fedmia.secagg.odds import Odds, degree_for


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
    return opened <= half and split <= half and short <= 2.0**-eta


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
    with pytest.raises(
        ConfigError, match=r"dropout=0.3: expected at most 0.2, which leaves 7 of 9"
    ):
        degree_for(10, 0.6, 0.3)


@pytest.mark.parametrize("n", [3, 4, 7, 10, 39])
def test_the_largest_dropout_that_is_named_is_one_that_works(n):
    with pytest.raises(ConfigError, match=r"dropout=0.9: expected at most") as caught:
        degree_for(n, 0.1, 0.9)
    most = float(str(caught.value).split("at most ")[1].split(",")[0])
    t = Odds(n, 0.1, most).complete_threshold()
    assert t > (n - 1) / 2
    with pytest.raises(ConfigError, match=r"expected at most"):
        Odds(n, 0.1, most + 1 / n).complete_threshold()


def test_where_all_others_may_collude_no_graph_is_safe():
    for find in (Odds(3, 0.4, 0).least_degree, partial(degree_for, 3, 0.4, 0)):
        with pytest.raises(ConfigError, match=r"corrupt=0.4: expected at most 0\.333, or no neigh"):
            find()


@pytest.mark.parametrize(
    ("n", "corrupt", "dropout"), [(30, 0.1, 0.1), (60, 0.2, 0.1), (100, 0, 0.3), (12, 0.25, 0)]
)
def test_a_degree_and_threshold_of_ones_own_are_held_to_exact_fractions(n, corrupt, dropout):
    odds = Odds(n, corrupt, dropout)
    pairs = [(k, t) for k in range(2, n - 1, 2) for t in range(2, k + 1)]
    allowed = [(k, t) for k, t in pairs if safe(n, corrupt, dropout, k, t, 40, -math.inf)]
    found = {k: odds.least_threshold(k) for k in range(2, n - 1, 2) if odds.holds_together(k)}
    assert [(k, t) for k, t in pairs if found.get(k) and t >= found[k]] == allowed
    assert odds.least_degree() == (allowed[0][0] if allowed else n - 1)


def test_in_the_complete_graph_the_threshold_is_above_the_colluding_clients():
    assert [Odds(20, c / 20, 0.4).least_threshold(19) for c in (0, 1, 5, 18)] == [2, 2, 6, 19]
    assert Odds(20, 0.95, 0.4).least_threshold(19) is None
    assert Odds(20, 0.45, 0.45).holds_together(19)


@pytest.mark.parametrize(
    ("n", "corrupt", "t"),
    [(60, 0.45, 44), (10, 0.1, 6), (10, 0.0, 5), (100, 0.33, 67), (4, 0.1, 3)],
)
def test_two_signed_lists_take_more_answers_than_there_are(n, corrupt, t):
    assert Odds(n, corrupt, 0).signed_threshold() == t
    colluding = ceil(Fraction(str(corrupt)) * n)
    # n - 1 others hold shares: the honest ones give one each, those who collude both
    answers = (n - 1 - colluding) + 2 * colluding
    assert 2 * t > answers >= 2 * (t - 1)


def test_a_signed_threshold_that_too_few_reach_is_refused():
    assert Odds(60, 0.45, 0.25).signed_threshold() == 44  # 15 lost, 44 of 59 stay
    with pytest.raises(ConfigError, match=r"corrupt=0.45: expected less, or a dropout of less"):
        Odds(60, 0.45, 0.26).signed_threshold()


def test_a_share_counts_as_it_is_written_and_is_rounded_up():
    assert odds._count(0.29, 100) == 29  # 0.29 * 100 = 28.999999999999996
    assert odds._count(0.07, 100) == 7  # 0.07 * 100 = 7.000000000000001
    assert odds._count(0.05, 10) == 1
    assert odds._count(0, 10) == 0


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
