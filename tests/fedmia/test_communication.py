"""Bytes that clients send: counted from the answers, and said in one line."""

import pytest

from fedmia import results
from fedmia.communication import counted, line
from fedmia.schema import check


def test_the_mean_of_an_answer_and_the_sum_of_all():
    found = counted([100, 200, 600], 1000)
    assert found == {"bytes_per_client_round": 300.0, "up": 900, "dense": 1000}
    check(found, results.Communication)


def test_nothing_where_nobody_answered():
    assert counted([], 1000) is None


@pytest.mark.parametrize(
    ("answers", "dense", "said"),
    [
        ([100, 150], 1000, "125 B by a client in a round, 12.5% of the whole model; 250 B in all"),
        (
            [34_000] * 300,
            340_008,
            "34 kB by a client in a round, 10.0% of the whole model; 10.2 MB",
        ),
        (
            [2_500_000_000],
            10**10,
            "2.5 GB by a client in a round, 25.0% of the whole model; 2.5 GB",
        ),
    ],
)
def test_the_line_has_units(answers, dense, said):
    assert line(counted(answers, dense)).startswith(said)
