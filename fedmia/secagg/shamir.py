"""Secret sharing: of n shares any t give the secret back, and fewer say nothing about it.

A. Shamir, How to Share a Secret, Communications of the ACM 22, 1979, over the integers modulo the
prime p = 2^256 + 297, the first above every 32-byte secret. The share at the point x is f(x) of a
polynomial f of degree t - 1 with f(0) the secret and its other coefficients uniform, and with
Lagrange's weights w_x = Π_{z≠x} z / (z - x) over any t points, f(0) = Σ_x w_x f(x).

A share carries no proof: a false one gives a false secret, so shares travel sealed, and a caller
checks what it recovers where it can. Python's integers take no constant time.
"""

import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, islice

from fedmia.secagg.errors import ProtocolError

PRIME = 2**256 + 297
_SECRET = 32  # bytes
_SHARE = 33  # bytes: p has 257 bits
_LAZY = 16  # steps of Horner's rule between two reductions, which cost more than a step


def split(secret: bytes, threshold: int, points: Sequence[int]) -> dict[int, bytes]:
    """Return one share of 33 bytes (big-endian) for each of ``points``.

    Parameters
    ----------
    secret
        32 bytes.
    threshold
        The number of shares t that give the secret back, from 1 to the number of points.
    points
        Distinct, each from 1 to p - 1.

    Raises
    ------
    ProtocolError
        If an argument is outside these ranges.
    """
    if len(secret) != _SECRET:
        raise ProtocolError(f"a secret of {len(secret)} bytes cannot be shared: expected {_SECRET}")
    if not 1 <= threshold <= len(points):
        raise ProtocolError(f"threshold={threshold}: expected 1 to the {len(points)} points")
    _check(points)
    drawn = (secrets.randbelow(PRIME) for _ in range(threshold - 1))
    coefficients = (int.from_bytes(secret), *drawn)
    return {x: _evaluate(coefficients, x).to_bytes(_SHARE) for x in points}


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Return the secret of 32 bytes behind ``shares``, by point; the lowest ``threshold`` are read.

    Raises
    ------
    ProtocolError
        If there are fewer than ``threshold`` shares, a point or share is outside the field, or the
        secret would not fit 32 bytes, which shares of one secret never give.
    """
    if not 1 <= threshold <= len(shares):
        raise ProtocolError(f"{len(shares)} shares: expected at least the threshold {threshold}")
    points = tuple(sorted(shares)[:threshold])
    weights = _weights(points)
    secret = sum(w * _value(shares[x]) for w, x in zip(weights, points, strict=True)) % PRIME
    if secret >> (8 * _SECRET):
        raise ProtocolError("the shares do not belong to one secret")
    return secret.to_bytes(_SECRET)


def _evaluate(coefficients: Sequence[int], x: int) -> int:
    value = 0
    for end in range(len(coefficients), 0, -_LAZY):
        for coefficient in reversed(coefficients[max(end - _LAZY, 0) : end]):
            value = value * x + coefficient
        value %= PRIME
    return value


def _value(share: bytes) -> int:
    value = int.from_bytes(share)
    if len(share) != _SHARE or value >= PRIME:
        raise ProtocolError(f"a share of {len(share)} bytes is outside the field")
    return value


def _check(points: Sequence[int]) -> None:
    if len(set(points)) < len(points) or not all(0 < x < PRIME for x in points):
        raise ProtocolError("points of shares: expected distinct ones from 1 to the prime less 1")


@lru_cache(maxsize=1024)
def _weights(points: tuple[int, ...]) -> tuple[int, ...]:
    """Return w_x of every point, with one inversion for all of them."""
    _check(points)
    product = _product(points)
    below = [x * _product([z - x for z in points if z != x]) % PRIME for x in points]
    prefix = list(accumulate(below, lambda a, b: a * b % PRIME, initial=1))
    inverse, weights = pow(prefix[-1], -1, PRIME), []
    for denominator, before in zip(reversed(below), islice(reversed(prefix), 1, None), strict=True):
        weights.append(product * inverse * before % PRIME)
        inverse = inverse * denominator % PRIME
    return tuple(reversed(weights))


def _product(values: Sequence[int]) -> int:
    result = 1
    for value in values:
        result = result * value % PRIME
    return result
