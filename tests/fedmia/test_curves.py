from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from fedmia.attacks.base import NotApplicableError
from fedmia.curves import follow

OWNER = np.array([0, 0, 1, 1, -1, -1, -1, -1])
MEMBER = np.arange(2)[:, None] == OWNER


@dataclass(frozen=True)
class Signals:
    """Knows how many rounds there were, and nothing else."""

    rounds: int

    def until(self, rounds):
        return Signals(rounds)


@dataclass(frozen=True)
class Knows:
    """Right about members from one round on; before that, about the contrary."""

    since: int
    cheap: bool = True


class Rounds(tuple):
    rounds = property(lambda self: tuple(self))


def view(rounds):
    return SimpleNamespace(transcript=Rounds(rounds), signals=Signals(len(rounds)))


def ask(attack, early):
    return np.where(early.signals.rounds >= attack.since, MEMBER, ~MEMBER).astype(float), {}


def prove(scores):
    return float(len(scores)), 10.0


def run(attacks, *, ask=ask, rounds=range(1, 6), left_out=None, prove=prove, finals=None):
    left_out = dict.fromkeys(attacks, ()) if left_out is None else left_out
    finals = dict.fromkeys(attacks, MEMBER.astype(float)) if finals is None else finals
    return follow(
        view(rounds),
        attacks,
        {name: dict.fromkeys(rows).keys() for name, rows in left_out.items()},
        ask,
        lambda rows: np.where(np.isin(OWNER, list(rows)), -2, OWNER),
        prove,
        finals,
    )


def test_an_attack_is_asked_again_with_what_there_was_after_each_round():
    found = run({"early": Knows(2), "late": Knows(5)})
    assert [(p["round"], p["auc"]) for p in found.auc["early"]] == [
        (1, 0.0),
        (2, 1.0),
        (3, 1.0),
        (4, 1.0),
        (5, 1.0),
    ]
    assert [p["auc"] for p in found.auc["late"]] == [0.0, 0.0, 0.0, 0.0, 1.0]


def test_all_cheap_attacks_prove_together_and_the_last_bound_is_of_every_attack():
    seen = []

    def prove(scores):
        seen.append(sorted(scores))
        return 0.5, 2.0

    finals = dict.fromkeys(("cheap", "dear"), MEMBER.astype(float))
    found = run({"cheap": Knows(1), "dear": Knows(1, cheap=False)}, prove=prove, finals=finals)
    assert seen == [["cheap"]] * 4 + [["cheap", "dear"]]
    assert found.bounds[0] == {"round": 1, "epsilon_lower_bound": 0.5, "epsilon_ceiling": 2.0}
    assert list(found.auc) == ["cheap"]


def test_at_most_ten_rounds_are_looked_at_first_and_last_among_them():
    found = run({"a": Knows(1)}, rounds=range(3, 103))
    rounds = [p["round"] for p in found.bounds]
    assert (len(rounds), rounds[0], rounds[-1]) == (10, 3, 102)
    assert rounds == [p["round"] for p in found.auc["a"]]


@pytest.mark.parametrize(
    "arguments", [{"rounds": [1]}, {"rounds": []}, {"attacks": {"dear": Knows(1, cheap=False)}}]
)
def test_one_round_or_no_cheap_attack_is_no_curve(arguments):
    found = run(**({"attacks": {"a": Knows(1)}} | arguments))
    assert (found.auc, found.bounds, found.failed) == ({}, [], {})


def test_a_round_without_an_applicable_attack_has_neither_auc_nor_bound():
    def late(attack, early):
        if early.signals.rounds < 3:
            raise NotApplicableError("not yet")
        return ask(attack, early)

    found = run({"a": Knows(1)}, ask=late)
    assert [p["auc"] for p in found.auc["a"]] == [None, None, 1.0, 1.0, 1.0]
    assert [p["epsilon_lower_bound"] for p in found.bounds] == [None, None, 1.0, 1.0, 1.0]


def test_targets_that_come_late_are_waited_for():
    def growing(attack, early):
        away = {1: "unseen"} if early.signals.rounds < 4 else {}
        return ask(attack, early)[0][: 2 - len(away)], away

    found = run({"a": Knows(1)}, ask=growing)
    assert [p["auc"] for p in found.auc["a"]] == [None, None, None, 1.0, 1.0]
    assert [p["epsilon_ceiling"] for p in found.bounds] == [None, None, None, 10.0, 10.0]


def test_an_attack_that_never_has_all_targets_has_a_curve_and_proves_nothing():
    def without(attack, early):
        return ask(attack, early)[0][:1], {1: "unseen"}

    found = run({"a": Knows(1)}, ask=without, left_out={"a": (1,)}, finals={})
    assert [p["auc"] for p in found.auc["a"]] == [1.0] * 5
    assert {p["epsilon_lower_bound"] for p in found.bounds} == {None}


def test_an_attack_that_breaks_on_the_way_is_named_and_proves_nothing_any_more():
    def breaking(attack, early):
        if attack.since == 7 and early.signals.rounds == 2:
            raise ZeroDivisionError("no luck")
        return ask(attack, early)

    found = run({"good": Knows(1), "bad": Knows(7)}, ask=breaking)
    assert found.failed == {"bad": "ZeroDivisionError: no luck"}
    assert [p["epsilon_lower_bound"] for p in found.bounds] == [2.0, 1.0, 1.0, 1.0, 1.0]
    assert [p["auc"] for p in found.auc["good"]] == [1.0] * 5
