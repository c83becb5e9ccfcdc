import numpy as np
import pytest

from fedmia.errors import ConfigError
from fedmia.observer import Observer
from fedmia.records import KNOWLEDGE, Capability, MaskedInput, Observation, Update
from fedmia.vantages import (
    VANTAGES,
    Aggregate,
    FinalModel,
    MaskedServer,
    Participant,
    Server,
    named,
)

PARAMS = {"w": np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)}
WORDS = MaskedInput(8, np.array([1, 2], np.uint32))
FULL = Observation(3, PARAMS, (5, 8), (Update(5, 10, PARAMS),), PARAMS, (WORDS,))
FINAL = Observation(0, PARAMS, ())


def test_the_server_sees_everything():
    assert Server().view(FULL) is FULL
    assert Server().view(FINAL) is FINAL
    assert Server.shows == frozenset(Capability) - KNOWLEDGE
    assert Server().hides_updates == ""


def test_under_secure_aggregation_the_server_sees_masked_words_in_place_of_updates():
    vantage = MaskedServer("secagg_plus")
    seen = vantage.view(FULL)

    assert (seen.round, seen.params, seen.recipients) == (3, PARAMS, (5, 8))
    assert (seen.updates, seen.masked, seen.aggregate) == ((), (WORDS,), PARAMS)
    assert vantage.view(FINAL) == FINAL
    assert (vantage.name, vantage.per_client) == ("server", False)
    assert vantage.shows == {Capability.GLOBAL_MODEL, Capability.MANY_ROUNDS}


def test_who_sees_the_aggregate_knows_of_no_single_client():
    seen = Aggregate().view(FULL)

    assert (seen.round, seen.params, seen.aggregate) == (3, PARAMS, PARAMS)
    assert (seen.recipients, seen.updates, seen.masked) == ((), (), ())
    assert Aggregate().view(FINAL).params is PARAMS
    assert not Aggregate.per_client
    assert Aggregate.shows == MaskedServer.shows


def test_a_participant_sees_the_model_it_was_sent_and_knows_of_nobody_else():
    seen = Participant(8).view(FULL)

    assert (seen.round, seen.params, seen.recipients) == (3, PARAMS, (8,))
    assert (seen.updates, seen.aggregate, seen.masked) == ((), None, ())
    assert Participant(9).view(FULL) is None
    assert Participant(8).view(FINAL) is None
    assert Capability.CLIENT_UPDATES not in Participant.shows


def test_whoever_gets_the_final_model_sees_no_round():
    assert FinalModel().view(FULL) is None
    assert FinalModel().view(FINAL) is FINAL
    assert FinalModel.shows == {Capability.GLOBAL_MODEL}


@pytest.mark.parametrize("kind", VANTAGES, ids=lambda kind: kind.name)
def test_a_vantage_contains_only_what_shows_no_more_and_is_found_by_its_name(kind):
    assert named(kind.name) is kind
    for name in kind.contains:
        assert named(name).shows <= kind.shows
        assert not named(name).contains - kind.contains
    assert kind.name not in kind.contains


def test_there_is_no_vantage_of_another_name():
    assert named("wall") is None


def test_an_observer_stands_where_its_setting_says():
    nodes = {50: 1, 70: 0}

    assert Observer("server").stand(nodes) == Server()
    assert Observer("aggregate").stand(nodes) == Aggregate()
    assert Observer("final_model").stand(nodes) == FinalModel()
    assert Observer("participant", participant=1).stand(nodes) == Participant(50)


def test_a_strategy_that_hides_updates_hides_them_from_the_server_alone():
    nodes = {50: 1, 70: 0}

    assert Observer("server").stand(nodes, "secagg_plus") == MaskedServer("secagg_plus")
    for name in ("aggregate", "participant", "final_model"):
        assert Observer(name).stand(nodes, "secagg_plus") == Observer(name).stand(nodes)


def test_a_curious_participant_that_does_not_exist_is_named():
    with pytest.raises(ConfigError, match=r"participant=2: expected in 0\.\.1"):
        Observer("participant", participant=2).stand({50: 1, 70: 0})
    Observer("server", participant=2).stand({50: 1, 70: 0})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"vantage": "wall"},
            "vantage=wall: expected one of server, aggregate, participant, final_model",
        ),
        ({"participant": -1}, "participant=-1: expected at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(ConfigError) as caught:
        Observer(**settings)

    assert str(caught.value) == said
