"""The (target, record) pairs of a whole federation.

Every held-out record is scored once per target, so that the pairs of one record are not
independent; what is sure is counted in records.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from fedmia.metrics import Bools, Floats, Ints, numbered, rate_above, resolved


@dataclass(frozen=True)
class Pairs:
    """All compared (target, record) pairs, flat: each field of shape (p,)."""

    scores: Floats
    members: Bools
    rows: Ints
    records: Ints
    strata: Ints  # (row, label): matching labels across targets would let the prior back in

    @cached_property
    def row_index(self) -> Ints:
        """The rows numbered from 0 without gaps."""
        return numbered(self.rows)

    @cached_property
    def record_index(self) -> Ints:
        """The records numbered from 0 without gaps."""
        return numbered(self.records)

    @cached_property
    def num_rows(self) -> int:
        """How many rows there are."""
        return int(self.row_index.max()) + 1

    @cached_property
    def is_member(self) -> Bools:
        """Whether each record, so numbered, is a member of its row; shape (records,)."""
        return np.bincount(self.record_index, self.members) > 0

    @cached_property
    def num_nonmembers(self) -> int:
        """How many distinct records are non-members."""
        return int(np.count_nonzero(np.bincount(self.records[~self.members])))

    def only(self, mask: Bools) -> "Pairs":
        """Return the pairs where ``mask``, of shape (p,), is true."""
        return Pairs(
            self.scores[mask],
            self.members[mask],
            self.rows[mask],
            self.records[mask],
            self.strata[mask],
        )

    def rates(self, fprs: Sequence[float]) -> list[float | None]:
        """Return the pooled TPR at each FPR, ``None`` below one over the distinct non-members."""
        s, m, distinct = self.scores, self.members, self.num_nonmembers
        return [rate_above(s[m], s[~m], f) if resolved(f, distinct) else None for f in fprs]


def pair(
    scores: ArrayLike, owner: ArrayLike, labels: ArrayLike | None = None, *, others: bool = False
) -> Pairs:
    """Return row k's members beside its non-members, for all rows that have members.

    Parameters
    ----------
    scores
        Shape (K, n): target k's score of candidate j.
    owner
        Shape (n,): the row whose client trained on the record, −1 held out, −2 not evaluated.
    labels
        Shape (n,); without them every record has the same.
    others
        Take the members of other clients as non-members, instead of the held-out records.

    Raises
    ------
    ValueError
        If shapes disagree, a score is not finite, or members or held-out records are missing.
    """
    s, own = np.asarray(scores, dtype=np.float64), np.asarray(owner)
    label = np.zeros(own.shape, dtype=np.int64) if labels is None else np.asarray(labels)
    if s.ndim != 2 or own.shape != s.shape[1:] or label.shape != own.shape:
        raise ValueError(
            f"shapes scores={s.shape}, owner={own.shape}, labels={label.shape}: "
            "expected (K, n), (n,), (n,)"
        )
    if own.size and not -2 <= own.min() <= own.max() < len(s):
        raise ValueError(f"owner spans [{own.min()}, {own.max()}]: expected [-2, {len(s) - 1}]")
    if not np.isfinite(s).all():
        row, record = np.argwhere(~np.isfinite(s))[0]
        raise ValueError(f"scores[{row}, {record}] is {s[row, record]}: expected a finite score")
    positive = own == np.arange(len(s))[:, None]
    negative = ((own >= 0) & ~positive if others else own == -1) & positive.any(axis=1)[:, None]
    if not positive.any() or not (others or negative.any()):
        raise ValueError(
            f"{positive.sum()} members and {(own == -1).sum()} held-out non-members: "
            "expected at least one of each"
        )
    rows, records = np.nonzero(positive | negative)
    _, code = np.unique(label, return_inverse=True)
    strata = rows * (code.max() + 1) + code[records]
    return Pairs(s[rows, records], positive[rows, records], rows, records, strata)
