"""How sure one run is of its AUC and rates: all pairs of a record are one observation.

No interval excludes what n records cannot: with n = min(members, distinct non-members) the upper
end is at least 1 − a^(1/n) and the lower at most a^(1/n), a = (1 − confidence)/2, the exact
(Clopper–Pearson) bounds at 0 and n of n. A perfect separation therefore has an interval.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm
from scipy.stats import t as student

from fedmia.metrics import ROUNDING, Floats, Ints, auc, placements, resolved
from fedmia.pairs import Pairs

Weights = NDArray[np.int32] | NDArray[np.int64]

_CHUNK = 4_000_000  # bootstrap weights held at once
_ENOUGH_TARGETS = 5


def auc_with_interval(pairs: Pairs, confidence: float) -> tuple[float, list[float]]:
    """Return the pooled AUC and its interval.

    Structural components (DeLong et al., Biometrics 1988), summed over all pairs of a record
    (Obuchowski, Biometrics 1997), members centred on their target, plus the variance between
    targets (two-way analysis of variance, never below 0), since a run attacks a sample of the
    clients that could have been; Satterthwaite's degrees of freedom, on the logit scale.
    """
    s, m = pairs.scores, pairs.members
    value = auc(s, m)
    tail = (1 - confidence) / 2
    variance, freedom = _auc_variance(pairs, value)
    if not 0 < value < 1 or variance == 0:
        return value, _widen(pairs, value, value, tail)
    half = student.ppf(1 - tail, freedom) * np.sqrt(variance) / (value * (1 - value))
    ends = expit(logit(value) + half * np.array([-1, 1]))
    return value, _widen(pairs, ends[0], ends[1], tail)


def rate_intervals(
    pairs: Pairs, fprs: Sequence[float], confidence: float, draws: int, rng: np.random.Generator
) -> list[list[float] | None]:
    """Return the interval of each rate of :meth:`Pairs.rates`, ``None`` where that is.

    Percentile bootstrap over members and distinct non-members, all pairs of a record together;
    with at least 5 targets a second one over whole targets, stretched for their small number
    (Student's t, K/(K − 1)), and the wider end of the two. With fewer targets it says little about
    how targets differ.
    """
    known = [fpr for fpr in fprs if resolved(fpr, pairs.num_nonmembers)]
    if not known:
        return [None] * len(fprs)
    tail, targets = (1 - confidence) / 2, int(pairs.row_index.max()) + 1

    def ends(resample_targets: bool) -> Floats:
        drawn = _bootstrap_rates(pairs, known, draws, rng, resample_targets=resample_targets)
        return np.quantile(drawn, [tail, 1 - tail], axis=0)

    low, high = ends(resample_targets=False)
    if targets >= _ENOUGH_TARGETS:
        rates = np.array(pairs.rates(known), dtype=np.float64)
        stretch = student.ppf(1 - tail, targets - 1) / norm.ppf(1 - tail)
        stretch *= np.sqrt(targets / (targets - 1))
        wide = rates + stretch * (ends(resample_targets=True) - rates)
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
    M, N, K = int(m.sum()), pairs.num_nonmembers, int(row.max()) + 1
    by_row = M > K  # else no target has two members to compare
    inner = influence - _group_mean(influence, 2 * row + m) if by_row else influence
    spare_m, spare_n = max(M - K if by_row else M - 1, 1), max(N - 1, 1)

    total = np.bincount(record, inner)
    held = np.bincount(record, m) > 0
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


def _bootstrap_rates(
    pairs: Pairs,
    fprs: Sequence[float],
    draws: int,
    rng: np.random.Generator,
    *,
    resample_targets: bool,
) -> Floats:
    """Return resampled TPRs of shape (draws, len(fprs)).

    Distinct non-members are drawn with replacement, and either the members or whole targets.
    """
    K = int(pairs.row_index.max()) + 1
    of_record = resampled_records(pairs, draws, rng, members=not resample_targets)
    of_row = _resample(rng, K, draws) if resample_targets else np.ones((draws, K), dtype=np.int32)
    return weighted_rates(pairs, fprs, of_record, of_row)


def resampled_records(
    pairs: Pairs, draws: int, rng: np.random.Generator, *, members: bool = True
) -> NDArray[np.int32]:
    """Return how often each record is drawn, shape (draws, records): with replacement, by kind.

    Without ``members``, each of these is drawn once.
    """
    held = np.bincount(pairs.record_index, pairs.members) > 0
    weights = np.ones((draws, held.size), dtype=np.int32)
    for group in (~held, held & members):
        if group.any():
            weights[:, group] = _resample(rng, int(group.sum()), draws)
    return weights


def weighted_rates(
    pairs: Pairs, fprs: Sequence[float], of_record: Weights, of_row: Weights
) -> Floats:
    """Return the pooled TPRs at each FPR where records and rows count several times or not at all.

    Scores are sorted once. Weights of shape (draws, records) and (draws, rows), both numbered as
    in :class:`Pairs`; the result has shape (draws, len(fprs)).
    """
    s, m = pairs.scores, pairs.members
    row, record = pairs.row_index, pairs.record_index
    draws, K = of_row.shape

    order = np.argsort(-s[~m])
    rivals, rival_row, rival = s[~m][order], row[~m][order], record[~m][order]
    order = np.argsort(-s[m])
    member_row, member = row[m][order], record[m][order]
    # how many members lie strictly above each possible threshold; all of them above none
    above = np.append(np.searchsorted(-s[m][order], -rivals), member.size)
    pair_count = np.zeros((K, of_record.shape[1]))
    pair_count[rival_row, rival] = 1

    rates = np.empty((draws, len(fprs)))
    # a resample's threshold lies near the top of the order: the rest is read only if one does not
    top = min(rival.size, 64 + int(2 * max(fprs) * rival.size))
    step = max(1, _CHUNK // rival.size)
    for start in range(0, draws, step):
        w, r = of_record[start : start + step], of_row[start : start + step]
        mass = np.cumsum(np.pad(w[:, member] * r[:, member_row], ((0, 0), (1, 0))), axis=1)
        total = (w * (r @ pair_count)).sum(axis=1)
        limits = np.floor(np.outer(total, fprs) + ROUNDING)
        passed = np.cumsum(w[:, rival[:top]] * r[:, rival_row[:top]], axis=1)
        if (passed[:, -1:] <= limits).any():
            passed = np.cumsum(w[:, rival] * r[:, rival_row], axis=1)
        for i in range(len(fprs)):
            at = (passed <= limits[:, i : i + 1]).sum(axis=1)
            hits = np.take_along_axis(mass, above[at][:, None], axis=1)[:, 0]
            rates[start : start + step, i] = hits / mass[:, -1]
    return rates


def _resample(rng: np.random.Generator, size: int, draws: int) -> NDArray[np.int64]:
    """Return how often each of ``size`` units is drawn, shape (draws, size)."""
    return rng.multinomial(size, np.full(size, 1 / size), draws)
