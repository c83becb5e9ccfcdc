import time
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmia.secagg import shamir
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.shamir import PRIME, combine, split

SECRET = bytes(range(32))
secrets_of_32 = st.binary(min_size=32, max_size=32)


def probably_prime(p):
    """Miller-Rabin with the first forty primes as bases."""
    bases = [b for b in range(2, 174) if all(b % d for d in range(2, b))]
    odd, twos = p - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in bases:
        x = pow(base, odd, p)
        if x not in (1, p - 1) and all((x := x * x % p) != p - 1 for _ in range(twos - 1)):
            return False
    return True


def interpolate(values, at):
    """Lagrange's formula term by term, an inversion for each."""
    total = 0
    for x, y in values.items():
        term = y
        for z in values:
            if z != x:
                term = term * (at - z) * pow(x - z, -1, PRIME) % PRIME
        total += term
    return total % PRIME


def test_the_modulus_is_the_first_prime_above_every_secret():
    assert PRIME == 2**256 + 297
    assert probably_prime(PRIME)
    assert not any(probably_prime(p) for p in range(2**256 + 1, PRIME, 2))


def test_shares_lie_on_the_polynomial_worked_out_by_hand():
    # f(x) = 5 + 3x + 2x²: f(1) = 10, f(2) = 19, f(3) = 32, and f(-1) = 4
    assert [shamir._evaluate((5, 3, 2), x) for x in (1, 2, 3, PRIME - 1)] == [10, 19, 32, 4]
    assert shamir._evaluate((PRIME - 1, 1), 1) == 0


@pytest.mark.parametrize("length", [1, 15, 16, 17, 32, 33, 67])
@pytest.mark.parametrize("x", [1, 100, 2**64 - 1, PRIME - 2])
def test_reducing_late_gives_the_sum_of_powers(length, x):
    coefficients = [pow(3, 200 + i, PRIME) for i in range(length)]
    powers = sum(c * pow(x, i, PRIME) for i, c in enumerate(coefficients))
    assert shamir._evaluate(coefficients, x) == powers % PRIME


def test_weights_are_those_worked_out_by_hand():
    # points 1, 2, 3: 2·3/((2-1)(3-1)), 1·3/((1-2)(3-2)), 1·2/((1-3)(2-3))
    assert shamir._weights((1, 2, 3)) == (3, PRIME - 3, 1)
    assert shamir._weights((2, 4)) == (2, PRIME - 1)
    assert shamir._weights((7,)) == (1,)


def test_shares_worked_out_by_hand_combine():
    shares = {x: f.to_bytes(33) for x, f in {1: 10, 2: 19, 3: 32}.items()}
    assert combine(shares, 3) == (5).to_bytes(32)


def test_coefficients_come_from_the_operating_system(monkeypatch):
    asked = []
    monkeypatch.setattr(shamir.secrets, "randbelow", lambda n: asked.append(n) or len(asked) + 2)
    shares = split((5).to_bytes(32), 3, [1, 2, 3])
    assert asked == [PRIME, PRIME]
    # f(x) = 5 + 3x + 4x²
    assert shares == {1: (12).to_bytes(33), 2: (27).to_bytes(33), 3: (50).to_bytes(33)}


@settings(max_examples=60, deadline=None)
@given(secrets_of_32, st.data())
def test_any_threshold_of_the_shares_give_the_secret_back(secret, data):
    points = data.draw(st.lists(st.integers(1, PRIME - 1), min_size=1, max_size=12, unique=True))
    threshold = data.draw(st.integers(1, len(points)))
    shares = split(secret, threshold, points)
    assert set(shares) == set(points)
    kept = data.draw(
        st.lists(st.sampled_from(points), min_size=threshold, max_size=len(points), unique=True)
    )
    assert combine({x: shares[x] for x in kept}, threshold) == secret
    values = {x: int.from_bytes(shares[x]) for x in kept}
    assert interpolate(values, 0) == int.from_bytes(secret)


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_the_smallest_and_the_largest_secret_come_back_from_every_subset(secret):
    shares = split(secret, 3, [1, 2, 3, 4, 2**64 - 1])
    for kept in combinations(shares, 3):
        assert combine({x: shares[x] for x in kept}, 3) == secret


@settings(max_examples=20, deadline=None)
@given(secrets_of_32, secrets_of_32)
def test_one_share_too_few_is_possible_with_every_other_secret(secret, other):
    points, threshold = [1, 2, 3, 4, 5], 4
    seen = {x: int.from_bytes(y) for x, y in split(secret, threshold, points[:4]).items() if x < 4}
    # The one polynomial of degree 3 through (0, other) and the three shares that were seen: it has
    # the same chance as the true one, since its coefficients are uniform as well.
    through = {0: int.from_bytes(other), **seen}
    rest = {x: interpolate(through, x).to_bytes(33) for x in (4, 5)}
    shares = {x: y.to_bytes(33) for x, y in seen.items()} | rest
    for kept in combinations(points, threshold):
        assert combine({x: shares[x] for x in kept}, threshold) == other


def test_the_same_secret_has_other_shares_each_time():
    first, second = (split(SECRET, 2, [1, 2]) for _ in range(2))
    assert all(first[x] != second[x] for x in first)


def test_a_threshold_of_one_hands_out_the_secret_itself():
    assert split(SECRET, 1, [3, 9]) == {3: b"\0" + SECRET, 9: b"\0" + SECRET}


def test_too_few_shares_are_refused():
    shares = split(SECRET, 3, [1, 2, 3])
    with pytest.raises(ProtocolError, match="2 shares: expected at least the threshold 3"):
        combine({x: shares[x] for x in (1, 3)}, 3)
    with pytest.raises(ProtocolError, match="0 shares"):
        combine({}, 0)


@pytest.mark.parametrize("points", [[1, 2, 1], [0, 1, 2], [-1, 1, 2], [1, 2, PRIME]])
def test_points_that_are_alike_or_outside_the_field_are_refused(points):
    with pytest.raises(ProtocolError, match="points of shares"):
        split(SECRET, 2, points)


def test_a_share_at_zero_is_refused():
    with pytest.raises(ProtocolError, match="points of shares"):
        combine({0: bytes(33), 1: bytes(33)}, 2)


@pytest.mark.parametrize("share", [PRIME.to_bytes(33), b"\xff" * 33, bytes(32), bytes(34), b""])
def test_a_share_outside_the_field_is_refused(share):
    with pytest.raises(ProtocolError, match="outside the field"):
        combine({1: bytes(33), 2: share}, 2)


def test_shares_of_a_value_above_every_secret_are_refused():
    with pytest.raises(ProtocolError, match="do not belong to one secret"):
        combine({1: (PRIME - 1).to_bytes(33)}, 1)
    with pytest.raises(ProtocolError, match="do not belong to one secret"):
        combine({4: (2**256).to_bytes(33)}, 1)
    assert combine({4: (2**256 - 1).to_bytes(33)}, 1) == b"\xff" * 32


def test_a_false_share_gives_another_secret():
    shares = split(SECRET, 2, [1, 2])
    false = shares | {2: ((int.from_bytes(shares[2]) + 1) % PRIME).to_bytes(33)}
    # w_2 = 1 / (1 - 2) = -1
    wanted = (int.from_bytes(SECRET) - 1).to_bytes(32)
    assert combine(false, 2) == wanted


@pytest.mark.parametrize("threshold", [-1, 0, 3])
def test_a_threshold_that_no_number_of_shares_meets_is_refused(threshold):
    with pytest.raises(ProtocolError, match=f"threshold={threshold}: expected 1 to the 2 points"):
        split(SECRET, threshold, [1, 2])


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_secret_of_another_length_is_refused(length):
    with pytest.raises(ProtocolError, match=f"a secret of {length} bytes"):
        split(bytes(length), 1, [1])


def test_many_secrets_from_the_same_points_cost_little():
    points = list(range(1, 101))
    shares = split(SECRET, 67, points)
    assert combine(shares, 67) == SECRET
    best = min(_seconds(lambda: combine(shares, 67)) for _ in range(20))
    assert best < 1e-3
    best = min(_seconds(lambda: split(SECRET, 67, points)) for _ in range(10))
    assert best < 20e-3


def _seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
