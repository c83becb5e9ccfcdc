"""Colluders send one vector, work it out once in a process, and leave out who is away."""

import numpy as np
import pytest
from asking import SENT, Honest, answer, ask, context, sent_by
from flwr.app import Error, Message

from clients.attackers.alie import Alie
from clients.attackers.colluding import squared_distances

UPDATES = np.random.default_rng(0).normal(size=(10, 6))


def test_all_colluders_send_the_same_bytes_from_one_process_or_several():
    mod = Alie(fraction=0.3)
    together = [sent_by(answer(mod, Honest(UPDATES), k)).tobytes() for k in (7, 8, 9)]
    apart = [sent_by(answer(Alie(fraction=0.3), Honest(UPDATES), k)).tobytes() for k in (7, 8, 9)]
    assert len({*together, *apart}) == 1


def test_in_one_process_what_is_known_is_trained_once_a_round():
    mod, honest = Alie(fraction=0.3), Honest(UPDATES)
    for client in (7, 8, 9):
        answer(mod, honest, client)
    assert honest.trained == [7, 7, 8, 9, 8, 9]  # its own, all three, and the others' own
    answer(mod, honest, 8, server_round=2)
    assert honest.trained[6:] == [8, 7, 8, 9]
    assert len(mod._last) == 1


def test_who_knows_all_trains_each_client_once_a_round():
    mod, honest = Alie(knowledge="all"), Honest(UPDATES)
    for client in (8, 9):
        answer(mod, honest, client)
    assert sorted(honest.trained) == list(range(10))


def test_another_model_or_run_is_another_agreement():
    mod = Alie()
    first = sent_by(answer(mod, Honest(UPDATES), 9))
    other = Honest(2 * UPDATES, params={**SENT, "b": SENT["b"] + 1})
    found = sent_by(answer(mod, other, 9), other.params)
    assert found == pytest.approx(2 * first, abs=1e-6)
    again = sent_by(answer(mod, Honest(3 * UPDATES), 9))
    assert again == pytest.approx(3 * first, abs=1e-6)
    elsewhere = sent_by(answer(mod, Honest(4 * UPDATES), 9, run_id=2))
    assert elsewhere == pytest.approx(4 * first, abs=1e-6)


def test_who_is_away_is_not_known_of():
    mod, honest = Alie(fraction=0.3), Honest(UPDATES, away=(8,))
    known = UPDATES[[7, 9]]
    wanted = known.mean(axis=0) - 1.5 * known.std(axis=0)
    assert sent_by(answer(mod, honest, 9)) == pytest.approx(wanted, abs=1e-6)


def test_an_error_in_place_of_an_answer_is_not_known_of_either():
    def some_fail(message, context):
        if context.node_config["partition-id"] == 8:
            return Message(Error(5, "away"), reply_to=message)
        return Honest(UPDATES)(message, context)

    known = UPDATES[[7, 9]]
    wanted = known.mean(axis=0) - 1.5 * known.std(axis=0)
    found = sent_by(Alie(fraction=0.3)(ask(), context(9), some_fail))
    assert found == pytest.approx(wanted, abs=1e-6)


def test_who_knows_of_nobody_else_sends_the_honest_update():
    found = sent_by(answer(Alie(), Honest(UPDATES, away=(8,)), 9))
    assert found == pytest.approx(UPDATES[9], abs=1e-6)


def test_others_are_trained_under_a_fresh_state_and_the_message_as_it_came():
    seen = []

    def looks(message, context):
        seen.append((len(context.state), len(message.content["arrays"])))
        reply = Honest(UPDATES)(message, context)
        context.state["mark"] = message.content["config"]
        del message.content["arrays"]["seen"]
        return reply

    own = context(9)
    own.state["before"] = ask().content["config"]
    Alie()(ask(), own, looks)
    assert seen == [(1, 3), (0, 3), (0, 3)]
    assert set(own.state) == {"before", "mark"}


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_squared_distances_are_those_of_each_pair(scale):
    updates = scale * (np.random.default_rng(1).normal(size=(5, 30)) + 50)
    naive = [[((a - b) ** 2).sum() for b in updates] for a in updates]
    assert squared_distances(updates) == pytest.approx(np.array(naive), rel=1e-9, abs=1e-20)
