from types import SimpleNamespace

import numpy as np
import pytest

from fedmia import asking
from fedmia.asking import Adversary, Asking, scores_of
from fedmia.attacks.base import NotApplicableError


class Attack:
    """Scores by what its adversary knows of a target; ``None`` is not applicable."""

    cheap = True

    def check_applicable(self, vantage, shows, hides_updates):
        pass

    def __call__(self, view, target, examples, known):
        if known.value is None:
            raise NotApplicableError(f"nothing of {target}")
        return view.sign * known.value * np.arange(len(examples))


class Broken(Attack):
    def __call__(self, view, target, examples, known):
        raise ZeroDivisionError("by zero")


VIEW = SimpleNamespace(
    transcript=SimpleNamespace(vantage="server", shows=frozenset(), hides_updates=""),
    signals=SimpleNamespace(seconds=0.0, candidates=range(3)),
    sign=1,
)
WHO = SimpleNamespace(nodes=(7, 9), clients=(0, 1), owner=None, without=lambda rows: WHO)


def adversary(*values, look=lambda seen: seen):
    knows = [SimpleNamespace(value=v, gives=frozenset(), shadows=None) for v in values]
    return Adversary(look, knows)


def turned(view):
    return SimpleNamespace(**{**vars(view), "sign": -1})


@pytest.fixture
def ask(monkeypatch):
    monkeypatch.setattr(asking.measuring, "measured", lambda *_: {"status": "ok"})
    return Asking(None, VIEW, WHO, None)


def test_each_target_is_asked_about_with_what_is_known_of_it():
    scores, left_out = scores_of(Attack(), adversary(1, 2), VIEW, WHO, range(3))
    assert scores.tolist() == [[0, 1, 2], [0, 2, 4]]
    assert left_out == {}
    scores, left_out = scores_of(Attack(), adversary(None, 2), VIEW, WHO, range(3))
    assert scores.tolist() == [[0, 2, 4]]
    assert left_out == {0: "nothing of 7"}
    with pytest.raises(NotApplicableError, match="nothing of 7"):
        scores_of(Attack(), adversary(None, None), VIEW, WHO, range(3))


def test_who_knows_more_looks_at_the_view_in_another_way():
    scores, _ = scores_of(Attack(), adversary(1, 1, look=turned), VIEW, WHO, range(3))
    assert scores.tolist() == [[0, -1, -2]] * 2


def test_a_second_row_is_added_beside_the_first_if_its_scores_differ(ask):
    before = ask("a", Attack(), adversary(1, 2))
    ask.again("a", Attack(), adversary(1, 2, look=turned), before)
    ask("b", Attack(), adversary(1, 2))
    assert [(row["name"], row.get("adaptive")) for row in ask.rows] == [
        ("a", None),
        ("a_adaptive", True),
        ("b", None),
    ]
    assert list(ask.scores) == list(ask.asked) == ["a", "a_adaptive", "b"]
    early = ask.of(ask.asked["a_adaptive"], VIEW)[0]
    assert np.array_equal(early, -before)


def test_a_second_row_that_says_the_same_is_left_out(ask):
    before = ask("a", Attack(), adversary(1, 2))
    ask.again("a", Attack(), adversary(1, 2), before)
    assert [row["name"] for row in ask.rows] == ["a"]
    assert list(ask.scores) == list(ask.asked) == ["a"]


def test_a_second_row_that_leaves_out_other_targets_is_another_one(ask):
    before = ask("a", Attack(), adversary(1, 1))
    ask.again("a", Attack(), adversary(None, 1), before)
    assert [row["name"] for row in ask.rows] == ["a", "a_adaptive"]
    assert ask.rows[1]["left_out"] == [{"client": 0, "reason": "nothing of 7"}]
    assert list(ask.scores) == ["a"]


@pytest.mark.parametrize(
    ("attack", "values", "status", "reason"),
    [
        (Broken(), (1, 1), "failed", "ZeroDivisionError: by zero"),
        (Attack(), (None, None), "not_applicable", "nothing of 7"),
    ],
)
def test_an_attack_that_fails_for_who_knows_has_a_row_that_says_so(
    ask, attack, values, status, reason
):
    before = ask("a", Attack(), adversary(1, 2))
    ask.again("a", attack, adversary(*values), before)
    assert (ask.rows[1]["status"], ask.rows[1]["reason"]) == (status, reason)
    assert ask.rows[1]["adaptive"]
    assert list(ask.asked) == ["a"]


def test_after_a_failed_training_every_attack_has_failed():
    ask = Asking(None, VIEW, WHO, "round 2: it diverged")
    assert ask("a", Attack(), adversary(1, 2)) is None
    assert ask.rows == [
        {"name": "a", "vantage": "server", "status": "failed", "reason": "round 2: it diverged"}
    ]
