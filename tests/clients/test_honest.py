import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from torch import nn

from clients.honest import DroppedOutError, Honest
from fedmia.arrays import to_params, to_record
from fedmia.errors import ConfigError
from fedmia.grid.base import LocalGrid
from fedmia.site import Site
from fedmia.training import FlatModel, LocalSGD


class Nowhere(LocalGrid):
    """Gives messages of this process an identity."""

    def execute(self, wave, timeout):
        raise AssertionError


@pytest.fixture(autouse=True)
def _identity():
    Nowhere(1, seed=0)


def site(partition_id=0, seed=0, n=12):
    rng = np.random.default_rng(partition_id)
    x = torch.tensor(rng.normal(size=(n, 4)), dtype=torch.float32)
    torch.manual_seed(0)
    model = FlatModel(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)))
    return Site(partition_id, x, (x[:, 0] > 0).long(), model, LocalSGD(2, 4, 0.1), seed)


def context():
    return Context(run_id=1, node_id=5, node_config={}, state=RecordDict(), run_config={})


def message(params, server_round=1, kind="train", name="arrays"):
    content = {name: to_record(params)}
    if server_round is not None:
        content["config"] = ConfigRecord({"server-round": server_round, "lr": 0.5})
    return Message(RecordDict(content), 5, kind)


def trained(client, params, server_round=1):
    reply = Honest().train(message(params, server_round), context(), client)
    return to_params(reply.content.array_records["arrays"])


def test_a_client_answers_with_the_model_that_its_site_trained():
    client, twin = site(), site()
    start = {k: v + v.dtype.type(1) for k, v in client.model.params().items()}

    reply = Honest().train(message(start, 3), context(), client)

    twin.model.load(start)
    loss = twin.fit(3)
    found = to_params(reply.content.array_records["arrays"])
    assert list(found) == list(start)
    assert all(np.array_equal(found[k], v) for k, v in twin.model.params().items())
    (metrics,) = reply.content.metric_records.values()
    assert dict(metrics) == {"num-examples": 12, "train-loss": loss}
    assert not np.array_equal(found["0.weight"], start["0.weight"])
    assert found["1.num_batches_tracked"] == start["1.num_batches_tracked"] + 6


def test_the_answer_is_not_changed_by_what_the_shared_model_does_next():
    client = site()
    start = client.model.params()

    reply = Honest().train(message(start), context(), client)
    before = to_params(reply.content.array_records["arrays"])["0.weight"].copy()
    client.model.load({k: v * 0 for k, v in start.items()})

    assert np.array_equal(to_params(reply.content.array_records["arrays"])["0.weight"], before)


def test_nothing_of_the_last_round_is_left_in_the_next():
    client = site()
    start = client.model.params()
    fresh = trained(client, start, 2)

    trained(client, {k: v * 3 for k, v in start.items()}, 1)
    again = trained(client, start, 2)

    assert all(np.array_equal(again[k], fresh[k]) for k in fresh)


def test_rounds_differ_in_the_order_of_the_records():
    client = site()
    start = client.model.params()

    assert not np.array_equal(
        trained(client, start, 1)["0.weight"], trained(client, start, 2)["0.weight"]
    )


def test_the_name_of_the_record_is_the_one_that_was_sent():
    client = site()

    reply = Honest().train(message(client.model.params(), name="weights"), context(), client)

    assert list(reply.content.array_records) == ["weights"]


def test_the_reply_goes_back_to_whoever_asked():
    client = site()
    asked = message(client.model.params())

    reply = Honest().train(asked, context(), client)

    assert reply.metadata.dst_node_id == asked.metadata.src_node_id
    assert reply.metadata.message_type == "train"


def test_a_message_without_a_round_is_answered():
    client = site()

    reply = Honest().train(message(client.model.params(), server_round=None), context(), client)

    assert reply.has_content()


def test_parameters_of_another_model_are_refused():
    with pytest.raises(ValueError, match="parameters of the model"):
        Honest().train(message({"weight": np.zeros(3)}), context(), site())


# dropout


def away(dropout, partition_id, server_round, seed=0):
    class Untrained(LocalSGD):
        def fit(self, model, x, y, rng):
            return 0.0

    client = site(partition_id, seed, n=1)
    client = Site(partition_id, client.x, client.y, client.model, Untrained(), seed)
    asked = message(client.model.params(), server_round)
    try:
        Honest(dropout).train(asked, context(), client)
    except DroppedOutError:
        return True
    return False


def pattern(dropout, clients=12, rounds=25, seed=0):
    return np.array(
        [[away(dropout, k, t, seed) for k in range(clients)] for t in range(1, rounds + 1)]
    )


def test_clients_are_away_as_often_as_asked_for_each_on_its_own():
    found = pattern(0.3)

    assert abs(found.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / found.size)
    assert len({tuple(column) for column in found.T}) == found.shape[1]
    assert len({tuple(row) for row in found}) > 20


def test_who_is_away_is_drawn_per_client_and_round_whoever_asks_first():
    forward = pattern(0.5, 4, 5)
    backward = np.array([[away(0.5, k, t) for k in (3, 2, 1, 0)] for t in (5, 4, 3, 2, 1)])

    assert np.array_equal(forward, backward[::-1, ::-1])
    assert not np.array_equal(forward, pattern(0.5, 4, 5, seed=1))


def test_nobody_is_away_unless_asked_for():
    assert not pattern(0.0, 3, 5).any()


def test_who_is_away_does_not_change_how_the_others_train():
    client = site()
    start = client.model.params()
    server_round = next(t for t in range(1, 50) if not away(0.5, 0, t))

    without = trained(client, start, server_round)
    reply = Honest(0.5).train(message(start, server_round), context(), client)

    found = to_params(reply.content.array_records["arrays"])
    assert all(np.array_equal(found[k], without[k]) for k in without)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 1.5, float("nan")])
def test_a_dropout_out_of_range_is_refused(dropout):
    with pytest.raises(ConfigError, match=r"dropout=.*: expected in \[0, 1\)"):
        Honest(dropout)


# evaluation


def test_evaluation_reports_the_accuracy_of_the_model_that_was_sent():
    client = site()
    start = client.model.params()
    perfect = {k: np.zeros_like(v) for k, v in start.items()}
    perfect["0.weight"][0, 0] = 1.0
    perfect["1.weight"][:] = perfect["1.running_var"][:] = 1.0
    perfect["2.weight"][1, 0] = 1.0

    replies = [
        Honest(0.9).evaluate(message(params, kind="evaluate"), context(), client)
        for params in (perfect, {k: -v if k == "2.weight" else v for k, v in perfect.items()})
    ]

    metrics = [dict(next(iter(r.content.metric_records.values()))) for r in replies]
    assert metrics[0] == {"num-examples": 12, "accuracy": 1.0}
    assert metrics[1]["accuracy"] == 0.0
    assert not replies[0].content.array_records


def test_two_array_records_are_one_too_many():
    client = site()
    asked = message(client.model.params())
    asked.content["more"] = ArrayRecord()

    with pytest.raises(ValueError, match="too many"):
        Honest().train(asked, context(), client)
