import numpy as np
import pytest
from federations import federation, rng

from fedmia.pairs import pair

OWNER = np.array([0, 1, -1, 0, -2, -1])
SCORES = np.arange(18.0).reshape(3, 6)


def listed(pairs):
    columns = (pairs.rows, pairs.records, pairs.scores, pairs.members)
    return list(zip(*(c.tolist() for c in columns), strict=True))


def test_a_row_meets_its_own_members_and_the_held_out_records():
    assert listed(pair(SCORES, OWNER)) == [
        (0, 0, 0.0, True),
        (0, 2, 2.0, False),
        (0, 3, 3.0, True),
        (0, 5, 5.0, False),
        (1, 1, 7.0, True),
        (1, 2, 8.0, False),
        (1, 5, 11.0, False),
    ]


def test_a_row_meets_the_members_of_others_in_their_own_comparison_alone():
    assert listed(pair(SCORES, OWNER, others=True)) == [
        (0, 0, 0.0, True),
        (0, 1, 1.0, False),
        (0, 3, 3.0, True),
        (1, 0, 6.0, False),
        (1, 1, 7.0, True),
        (1, 3, 9.0, False),
    ]


def test_strata_tell_both_labels_and_rows_apart():
    pairs = pair(SCORES, OWNER, [4, 4, 4, 9, 9, 9])
    assert len(set(pairs.strata.tolist())) == 4
    same = pairs.strata[:, None] == pairs.strata
    label = np.array([4, 4, 4, 9, 9, 9])[pairs.records]
    expected = (pairs.rows[:, None] == pairs.rows) & (label[:, None] == label)
    np.testing.assert_array_equal(same, expected)


def test_records_are_counted_once_however_many_rows_score_them():
    pairs = pair(SCORES, OWNER)
    assert pairs.num_nonmembers == 2
    assert pairs.num_rows == 2
    assert pairs.is_member.tolist() == [True, True, False, True, False]
    assert pairs.record_index.tolist() == [0, 2, 3, 4, 1, 2, 4]
    late = pairs.only(pairs.rows == 1)
    assert late.scores.tolist() == [7.0, 8.0, 11.0]
    assert late.row_index.tolist() == [0, 0, 0]


def test_rates_are_pooled_but_resolved_by_distinct_records():
    pairs = pair([[5.0, 1.0, 3.0, 4.0], [9.0, 3.5, 0.0, 1.0]], [0, 1, -1, -1])
    # non-members 4, 3, 1, 0: one of four is allowed above the threshold 3, two above 1
    assert pairs.rates([0.25, 0.49, 0.5, 0.75, 1.0]) == [None, None, 1.0, 1.0, 1.0]
    lower = pair([[5.0, 1.0, 3.0, 4.0], [9.0, 0.5, 0.0, 1.0]], [0, 1, -1, -1])
    assert lower.rates([0.5, 0.75, 1.0]) == [0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, o: (np.where(np.arange(o.size) == 7, np.nan, s), o), r"scores\[0, 7\] is nan"),
        (lambda s, o: (s[0], o), "shapes"),
        (lambda s, o: (s, o[:-1]), "shapes"),
        (lambda s, o: (s, np.where(o == 0, 10, o)), "owner spans"),
        (lambda s, o: (s, np.where(o == -1, -2, o)), "held-out"),
        (lambda s, o: (s, np.where(o >= 0, -1, o)), "0 members"),
    ],
)
def test_unusable_layouts_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        pair(*change(*federation(rng())))
