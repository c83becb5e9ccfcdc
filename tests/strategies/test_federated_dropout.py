"""The server of federated dropout: means by coordinate over those whose sub-model has it."""

import numpy as np
import pytest
from central_rounds import Connected, fed_avg
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.task_identity import TaskIdentity

from fedmia import experiment
from fedmia.arrays import to_params, to_record
from fedmia.config import compose
from fedmia.errors import ConfigError
from fedmia.preparation import prepare
from fedmia.submodel import drawn_mask
from strategies.federated_dropout import RECORD, FederatedDropout

SMALL = [
    *("num_rounds=2", "num_clients=4", "candidates.nonmembers=30", "metrics.bootstrap=100"),
    *("train.local_epochs=1", "pool=serial", "model.hidden=[16,8]"),
]
NODES = [31, 12, 25]


@pytest.fixture(autouse=True)
def _identity():
    TaskIdentity.task_id = TaskIdentity.run_id = 1
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def model():
    shapes = {"a.weight": (6, 3), "a.bias": (6,), "b.weight": (2, 6), "b.bias": (2,)}
    rng = np.random.default_rng(0)
    return {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


def ask(strategy, number=1, nodes=NODES):
    arrays, config = to_record(model()), ConfigRecord()
    return list(strategy.configure_train(number, arrays, config, Connected(nodes)))


def play(strategy, deltas, counts, number=1):
    """Play a round in which node k adds ``deltas[k]`` to all coordinates of its sub-model."""
    sent, replies, masks = ask(strategy, number, list(deltas)), [], {}
    for message in sent:
        node, told = message.metadata.dst_node_id, message.content[RECORD]
        params = to_params(message.content.array_records[next(iter(message.content.array_records))])
        masks[node] = drawn_mask(params, told["keep"], np.random.default_rng(told["seed"]))
        after = {k: v + deltas[node] * masks[node][k].astype(np.float32) for k, v in params.items()}
        metrics = MetricRecord({"num-examples": counts[node], "train-loss": 1.0})
        content = RecordDict({"arrays": to_record(after), "metrics": metrics})
        replies.append(Message(content, reply_to=message))
    arrays, _ = strategy.aggregate_train(number, replies)
    before, after = model(), to_params(arrays)
    return {k: after[k] - before[k] for k in before}, masks


def test_each_coordinate_is_moved_by_the_weighted_mean_of_those_who_have_it():
    deltas, counts = {31: 1.0, 12: -2.0, 25: 4.0}, {31: 10, 12: 20, 25: 30}
    moved, masks = play(FederatedDropout(fed_avg(), 0.5), deltas, counts)
    alone = nobody = 0
    for name, change in moved.items():
        for place in np.ndindex(change.shape):
            having = [k for k in deltas if masks[k][name][place]]
            total = sum(counts[k] * deltas[k] for k in having)
            expected = total / sum(counts[k] for k in having) if having else 0.0
            assert change[place] == pytest.approx(expected, abs=1e-6)
            alone, nobody = alone + (len(having) == 1), nobody + (not having)
    assert alone > 0
    assert nobody > 0


def test_with_all_units_it_is_federated_averaging():
    deltas, counts = {31: 1.0, 12: -2.0, 25: 4.0}, {31: 10, 12: 20, 25: 30}
    moved, _ = play(FederatedDropout(fed_avg(), 1.0), deltas, counts)
    for change in moved.values():
        np.testing.assert_allclose(change, (10 - 40 + 120) / 60, atol=1e-6)


def test_every_client_and_round_has_a_sub_model_of_its_own_that_the_seed_decides():
    def seeds(seed, number, nodes=NODES):
        strategy = FederatedDropout(fed_avg(), 0.5, seed)
        sent = ask(strategy, number, nodes)
        return {m.metadata.dst_node_id: m.content[RECORD]["seed"] for m in sent}

    first = seeds(0, 1)
    assert len(set(first.values())) == 3
    assert seeds(0, 1, NODES[::-1]) == first
    assert not {*seeds(0, 2).values(), *seeds(1, 1).values()} & {*first.values()}


def test_in_a_run_clients_send_less_and_their_updates_have_the_units_that_were_drawn(tmp_path):
    settings = compose(
        [*SMALL, "strategy=federated_dropout", "strategy.keep=0.5", "attack=avg_cosine"]
    )
    settings.output_dir = str(tmp_path)
    result = experiment.run(settings, tmp_path / "run")
    assert result["status"] == "ok"
    dense = 4 * (64 * 16 + 16 + 16 * 8 + 8 + 8 * 10 + 10)
    sub = 4 * (64 * 8 + 8 + 8 * 4 + 4 + 4 * 10 + 10)
    told = result["communication"]
    assert told["bytes_per_client_round"] == sub
    assert told["dense"] == dense


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["strategy.keep=0"], r"strategy\.keep=0(\.0)?: expected in \(0, 1\]"),
        (["client/defenses=[]"], r"client/defenses=\[\]: expected federated_dropout once"),
        (["model=logistic"], r"strategy: model=Sequential: expected a model with hidden units"),
        (
            ["strategy@strategy.inner=fedmedian"],
            r"strategy\.inner=FedMedian: expected a rule that is linear",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(overrides, said):
    small = [o for o in SMALL if "hidden" not in o or "model=logistic" not in overrides]
    with pytest.raises(ConfigError, match=f"^{said}"):
        prepare(compose([*small, "strategy=federated_dropout", *overrides]))


def test_the_mod_without_the_strategy_is_refused():
    with pytest.raises(ConfigError, match=r"needs strategy=federated_dropout; it is FedAvg$"):
        prepare(compose([*SMALL, "client/defenses=[federated_dropout]"]))
