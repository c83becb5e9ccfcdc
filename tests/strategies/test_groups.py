"""Clients are divided once into groups of about one size, which stand for them on a grid."""

from itertools import pairwise

import pytest

from fedmia.errors import ConfigError
from strategies.groups import Grouping, Heads
from tests.strategies.central_rounds import Connected


@pytest.mark.parametrize(
    ("size", "clients", "sizes"), [(4, 11, [3, 4, 4]), (3, 9, [3, 3, 3]), (6, 13, [4, 4, 5])]
)
def test_groups_are_as_few_as_the_size_allows_and_of_one_size_within_one(size, clients, sizes):
    grouping = Grouping(size, clients)
    found = grouping.of(range(100, 100 + clients))
    assert sorted(map(len, found.values())) == sizes
    assert (grouping.groups, grouping.smallest) == (len(sizes), sizes[0])
    assert sorted(node for group in found.values() for node in group) == [
        *range(100, 100 + clients)
    ]
    assert list(found) == sorted(min(group) for group in found.values())


def test_the_draw_depends_on_the_seed_and_on_ranks_of_nodes_not_on_their_order_or_values():
    here = Grouping(3, 9, seed=1).of(range(9))
    assert Grouping(3, 9, seed=1).of(reversed(range(9))) == here
    assert Grouping(3, 9, seed=2).of(range(9)) != here
    far = Grouping(3, 9, seed=1).of(range(0, 90, 10))
    assert [[n // 10 for n in group] for group in far.values()] == [list(g) for g in here.values()]


def test_neighbours_in_rank_are_not_grouped_together():
    found = Grouping(3, 300).of(range(300))
    together = sum(b - a == 1 for group in found.values() for a, b in pairwise(group))
    assert together < 10  # 2 on average


def test_a_grid_of_groups_shows_those_of_which_somebody_is_there_and_sends_nothing():
    heads = Heads(Connected([3, 4, 9]), {1: (1, 2, 3), 4: (4, 5, 6), 7: (7, 8, 10)})
    assert list(heads.get_node_ids()) == [1, 4]
    assert heads.there == {3, 4, 9}
    for send in (heads.push_messages, heads.send_and_receive):
        with pytest.raises(PermissionError, match="groups answer training alone"):
            send([])


@pytest.mark.parametrize(
    ("size", "clients", "said"),
    [
        (2, 9, "group_size=2: expected at least 3 clients"),
        (9, 9, "group_size=9: expected less than 9, the clients"),
        (4, 5, "group_size=4: expected one for which no group is smaller than 3; 5 clients make 2"),
    ],
)
def test_sizes_that_cannot_be_are_refused(size, clients, said):
    with pytest.raises(ConfigError, match=said):
        Grouping(size, clients)
