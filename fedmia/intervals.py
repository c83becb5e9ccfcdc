"""How sure one run is of its AUC and rates: all pairs of a record are one observation.

No interval excludes what n records cannot: with n = min(members, distinct non-members) the upper
end is at least 1 − a^(1/n) and the lower at most a^(1/n), a = (1 − confidence)/2, the exact
(Clopper–Pearson) bounds at 0 and n of n. A perfect separation therefore has an interval.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri, stdtrit

from fedmia.metrics import ROUNDING, Bools, Floats, Ints, auc, placements, resolved
from fedmia.pairs import Pairs

Counts = NDArray[np.uint8]
Weights = NDArray[np.integer[Any]]

_CHUNK = 16_000_000  # bootstrap weights held at once
_DRAWN = 1_000_000  # numbers drawn at once
_BLOCK = 32  # non-members whose weights are first added up
_ENOUGH_TARGETS = 5


def auc_with_interval(pairs: Pairs, confidence: float) -> tuple[float, list[float]]:
    """Return the pooled AUC and its interval.

    Structural components (DeLong et al., Biometrics 1988), summed over all pairs of a record
    (Obuchowski, Biometrics 1997), members centred on their target, plus the variance between
    targets (two-way analysis of variance, never below 0), since a run attacks a sample of the
    clients that could have been; Satterthwaite's degrees of freedom, on the logit scale.
    """
    tail = (1 - confidence) / 2
    value = auc(pairs.scores, pairs.members)
    variance, freedom = _auc_variance(pairs, value)
    if not 0 < value < 1 or variance == 0:
        return value, _widen(pairs, value, value, tail)
    half = stdtrit(freedom, 1 - tail) * np.sqrt(variance) / (value * (1 - value))
    ends = expit(logit(value) + half * np.array([-1, 1]))
    return value, _widen(pairs, ends[0], ends[1], tail)


def rate_intervals(
    pairs: Pairs, fprs: Sequence[float], confidence: float, draws: int, rng: np.random.Generator
) -> list[list[float] | None]:
    """Return the interval of each rate of :meth:`Pairs.rates`, ``None`` where that is.

    Percentile bootstrap over members and distinct non-members, all pairs of a record together;
    with at least 5 targets a second one over whole targets and the same non-members, stretched for
    their small number (Student's t, K/(K − 1)), and the wider end of the two. With fewer targets
    it says little about how targets differ. Generators in the same state draw the same records:
    attacks on one federation can be compared on them, and they are drawn once.
    """
    known = [fpr for fpr in fprs if resolved(fpr, pairs.num_nonmembers)]
    if not known:
        return [None] * len(fprs)
    tail, K = (1 - confidence) / 2, pairs.num_rows
    seed = int(rng.integers(2**63))
    of_record, of_row = _kept_resamples(pairs.is_member.tobytes(), K, draws, seed)

    def ends(drawn: Floats) -> Floats:
        return np.quantile(drawn, [tail, 1 - tail], axis=0)

    low, high = ends(weighted_rates(pairs, known, of_record))
    if K >= _ENOUGH_TARGETS:
        rates = np.array(pairs.rates(known), dtype=np.float64)
        stretch = stdtrit(K - 1, 1 - tail) / ndtri(1 - tail) * np.sqrt(K / (K - 1))
        once = np.where(pairs.is_member, np.uint8(1), of_record)
        wide = rates + stretch * (ends(weighted_rates(pairs, known, once, of_row)) - rates)
        low, high = np.minimum(low, wide[0]).clip(0, 1), np.maximum(high, wide[1]).clip(0, 1)
    found = {f: _widen(pairs, low[i], high[i], tail) for i, f in enumerate(known)}
    return [found.get(fpr) for fpr in fprs]


def _widen(pairs: Pairs, low: float, high: float, tail: float) -> list[float]:
    """Return the interval, widened to what so few records cannot exclude."""
    exact = tail ** (1 / min(int(pairs.members.sum()), pairs.num_nonmembers))
    return [float(min(low, exact)), float(max(high, 1 - exact))]


def _auc_variance(pairs: Pairs, value: float) -> tuple[float, float]:
    """Return the variance of the pooled AUC and its degrees of freedom."""
    s, m = pairs.scores, pairs.members
    influence = (placements(s, m) - value) / np.where(m, m.sum(), (~m).sum())

    row, record = pairs.row_index, pairs.record_index
    M, N, K = int(m.sum()), pairs.num_nonmembers, pairs.num_rows
    by_row = M > K  # else no target has two members to compare
    inner = influence - _group_mean(influence, 2 * row + m) if by_row else influence
    spare_m, spare_n = max(M - K if by_row else M - 1, 1), max(N - 1, 1)

    total = np.bincount(record, inner)
    held = pairs.is_member
    # a single record shows no spread: its placement's largest possible variance stands in
    of_members = (total[held] ** 2).sum() * M / spare_m if M > 1 else value * (1 - value)
    of_others = (total[~held] ** 2).sum() * N / spare_n if N > 1 else value * (1 - value)
    of_targets = observed = 0.0
    if by_row and K > 1:
        rest = inner[~m] - _group_mean(inner[~m], record[~m])
        noise = (inner[m] ** 2).sum() * M / spare_m
        noise += (rest**2).sum() * N / spare_n * K / (K - 1)
        observed = (np.bincount(row, influence) ** 2).sum() * K / (K - 1)
        of_targets = max(0.0, observed - noise)
    variance = of_members + of_others + of_targets
    spread = of_members**2 / spare_m + of_others**2 / spare_n
    if of_targets:  # a difference knows no more than what it was taken from
        spread += observed**2 / (K - 1)
    return float(variance), float(variance**2 / spread) if spread else np.inf


def _group_mean(values: Floats, group: Ints) -> Floats:
    size = np.maximum(np.bincount(group), 1)
    return (np.bincount(group, values) / size)[group]


def resampled_records(is_member: Bools, draws: int, rng: np.random.Generator) -> Counts:
    """Return how often each record is drawn, shape (draws, records): with replacement, by kind."""
    counts = np.empty((is_member.size, draws), dtype=np.uint8)
    for group in (~is_member, is_member):
        counts[group] = _resample(rng, int(group.sum()), draws)
    return counts.T


def weighted_rates(
    pairs: Pairs, fprs: Sequence[float], of_record: Weights, of_row: Weights | None = None
) -> Floats:
    """Return the pooled TPRs at each FPR where records and rows count several times or not at all.

    Scores are sorted once. Weights of shape (draws, records) and (draws, rows), both numbered as
    in :class:`Pairs`, quickest where one record's lie together in memory; without ``of_row`` each
    row counts once. The result has shape (draws, len(fprs)).

    Raises ``ValueError`` if rows meet different non-members, which :func:`pair` never gives.
    """
    s, m = pairs.scores, pairs.members
    row, record = pairs.row_index, pairs.record_index
    outside, inside = np.flatnonzero(~m), np.flatnonzero(m)
    if outside.size != pairs.num_rows * pairs.num_nonmembers:
        raise ValueError(f"{outside.size} pairs of non-members: expected the same in every row")
    outside, inside = outside[np.argsort(-s[outside])], inside[np.argsort(-s[inside])]
    # how many members lie strictly above each possible threshold; all of them above none
    above = np.append(np.searchsorted(-s[inside], -s[outside]), inside.size)

    rates = np.empty((len(of_record), len(fprs)))
    # a resample's threshold lies near the top of the order: the rest is read only if one does not
    top = min(outside.size, _BLOCK * (2 + int(2 * max(fprs) * outside.size / _BLOCK)))
    step = max(1, _CHUNK // outside.size)
    for start in range(0, len(rates), step):
        chunk = slice(start, start + step)
        w, r = of_record[chunk].T, None if of_row is None else of_row[chunk].T
        total = w[~pairs.is_member].sum(axis=0, dtype=np.int64)
        total *= pairs.num_rows if r is None else r.sum(axis=0, dtype=np.int64)
        limits = np.floor(np.outer(fprs, total) + ROUNDING)
        mass = np.cumsum(_weights(w, r, record[inside], row[inside]), axis=0, dtype=np.int64)
        mass = np.pad(mass, ((1, 0), (0, 0)))
        passed = _passed(_weights(w, r, record[outside[:top]], row[outside[:top]]), limits)
        if top < outside.size and (passed == top).any():
            passed = _passed(_weights(w, r, record[outside], row[outside]), limits)
        hits = np.take_along_axis(mass, above[passed], axis=0)
        rates[chunk] = (hits / mass[-1]).T
    return rates


def _weights(of_record: Weights, of_row: Weights | None, record: Ints, row: Ints) -> Weights:
    """Return how often each pair counts, shape (pairs, draws), from shapes (units, draws)."""
    if of_row is None:
        return of_record[record]
    return np.multiply(of_record[record], of_row[row], dtype=np.uint16)


def _passed(weights: Weights, limits: Floats) -> Ints:
    """Return how many pairs, from the first on, weigh no more than each limit together.

    Weights of shape (pairs, draws), limits and result of shape (fprs, draws). Whole blocks are
    added up first, so that only the one in which a limit is passed is read pair by pair.
    """
    pairs, draws = weights.shape
    if pairs % _BLOCK:
        weights = np.pad(weights, ((0, -pairs % _BLOCK), (0, 0)))
    blocks = weights.reshape(-1, _BLOCK, draws)
    ends = np.cumsum(blocks.sum(axis=1, dtype=np.int64), axis=0)
    found, draw = np.empty(limits.shape, dtype=np.int64), np.arange(draws)
    for i, limit in enumerate(limits):
        last = np.minimum((ends <= limit).sum(axis=0), len(ends) - 1)
        block = blocks[last, :, draw]
        before = ends[last, draw] - block.sum(axis=1, dtype=np.int64)
        within = before[:, None] + np.cumsum(block, axis=1, dtype=np.int64)
        found[i] = last * _BLOCK + (within <= limit[:, None]).sum(axis=1)
    return np.minimum(found, pairs)


def _resample(rng: np.random.Generator, size: int, draws: int) -> Counts:
    """Return how often each of ``size`` units is drawn, shape (size, draws).

    No unit is drawn 256 times: 8 bits hold the number with all but a chance of size/256!.
    """
    counts = np.empty((draws, size), dtype=np.uint8)
    step = max(1, _DRAWN // size)
    for start in range(0, draws, step):
        rows = counts[start : start + step]
        drawn = rng.integers(size, size=rows.shape) + size * np.arange(len(rows))[:, None]
        rows[:] = np.bincount(drawn.ravel(), minlength=rows.size).reshape(rows.shape)
    return np.ascontiguousarray(counts.T)


@lru_cache(maxsize=1)
def _kept_resamples(is_member: bytes, rows: int, draws: int, seed: int) -> tuple[Counts, Counts]:
    """Return how often each record and each row is drawn, shapes (draws, units)."""
    rng = np.random.default_rng(seed)
    records = resampled_records(np.frombuffer(is_member, dtype=np.bool_), draws, rng)
    return records, _resample(rng, rows, draws).T
