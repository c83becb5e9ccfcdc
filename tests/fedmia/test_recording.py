import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Error, Message, RecordDict

from clients.honest import Honest
from fedmia import promises
from fedmia.arrays import to_record
from fedmia.config import compose
from fedmia.document import faults, promised
from fedmia.grid.base import LocalGrid
from fedmia.observer import Observer
from fedmia.preparation import prepare
from fedmia.recording import ask_nodes, train
from fedmia.site import Site
from fedmia.stage import Stage
from fedmia.training import FlatModel
from fedmia.transcript import Transcript
from fedmia.truth import Truth

CLIENTS, ROUNDS = 4, 3
SETTINGS = [
    "dataset=wine",
    "model=logistic",
    "pool=serial",
    "partition.samples_per_client=12",
    "attack=yeom_loss",
    "train.local_epochs=1",
    f"num_clients={CLIENTS}",
    f"num_rounds={ROUNDS}",
]


def stage_of(*overrides: str) -> Stage:
    return prepare(compose([*SETTINGS, *overrides]))


@pytest.fixture(scope="module")
def stage() -> Stage:
    return stage_of()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def record(stage, run_dir, on_round=lambda server_round, accuracy: None):
    run_dir.mkdir(exist_ok=True)

    def main(grid):
        return train(stage, grid, run_dir, on_round)

    return stage.pool.run(stage.federation(), stage.config.num_clients, stage.config.seed, main)


@dataclass(frozen=True)
class Spoiling(Honest):
    """Does to one client's answers from some round on what a test wants."""

    how: str = "raise"
    client: int = 2
    since: int = 2

    def train(self, message, context, site):
        server_round = next(iter(message.content.config_records.values()))["server-round"]
        reply = super().train(message, context, site)
        if server_round < self.since or self.client not in (site.partition_id, -1):
            return reply
        if self.how == "raise":
            raise RuntimeError("out of power")
        name, arrays = next(iter(reply.content.array_records.items()))
        params = {k: a.numpy().copy() for k, a in arrays.items()}
        if self.how == "nan update":
            params[list(params)[-1]][0] = np.nan
        if self.how == "nan loss":
            next(iter(reply.content.metric_records.values()))["train-loss"] = float("nan")
        reply.content[name] = to_record(params)
        return reply


# a run that goes well


def test_every_round_is_recorded_and_reported(stage, tmp_path):
    reported = []

    training = record(stage, tmp_path, lambda *args: reported.append(args))

    transcript = Transcript(tmp_path / "transcript")
    assert training.failure is None
    assert training.faults == []
    assert training.rounds == ROUNDS
    assert transcript.rounds == tuple(range(1, ROUNDS + 1))
    assert sorted(training.nodes) == list(transcript.node_ids)
    assert [t for t, _ in training.test_accuracy] == list(range(ROUNDS + 1))
    assert reported == training.test_accuracy[1:]
    assert len(training.round_seconds) == ROUNDS
    for name, value in training.params.items():
        assert np.array_equal(transcript.final[name], value)
    first = transcript[0].params
    assert all(np.array_equal(first[k], v) for k, v in stage.model.state_dict().items())


def test_the_bytes_of_every_answer_are_kept(stage, tmp_path):
    plain = record(stage, tmp_path / "plain")
    dense = sum(value.nbytes for value in plain.params.values())
    assert plain.answer_bytes == [dense] * (CLIENTS * ROUNDS)

    signs = record(stage_of("client/defenses=[sign_sgd]"), tmp_path / "signs")
    sizes = [value.size for value in plain.params.values()]
    assert signs.answer_bytes == [sum(4 + -(-d // 8) for d in sizes)] * (CLIENTS * ROUNDS)


def test_the_aggregate_is_the_mean_of_the_updates_by_number_of_examples(stage, tmp_path):
    record(stage, tmp_path)

    for seen in Transcript(tmp_path / "transcript"):
        total = sum(u.num_examples for u in seen.updates)
        assert total == 12 * CLIENTS
        for name, change in seen.aggregate.items():
            mean = sum(u.num_examples * u.delta[name].astype(float) for u in seen.updates) / total
            assert np.allclose(change, mean, rtol=0, atol=1e-6)


def test_the_truth_is_kept_beside_the_transcript_and_not_inside(stage, tmp_path):
    training = record(stage, tmp_path)

    truth = Truth.load(tmp_path)
    assert truth.nodes == training.nodes
    assert sorted(truth.nodes.values()) == list(range(CLIENTS))
    assert truth.split.sha256 == stage.split.sha256
    assert {f.name for f in (tmp_path / "transcript").iterdir()} == {
        "meta.json",
        "final.safetensors",
        *(f"round_{t:05d}.safetensors" for t in range(1, ROUNDS + 1)),
    }


def test_each_update_is_that_of_the_client_that_the_truth_names(stage, tmp_path):
    training = record(stage, tmp_path)
    seen = Transcript(tmp_path / "transcript")[1]

    for update in seen.updates:
        client = training.nodes[update.node_id]
        own = stage.dataset.examples(stage.split.shards[client])
        x, y, model = torch.tensor(own.x), torch.tensor(own.y), FlatModel(stage.model)
        model.load(seen.params)
        Site(client, x, y, model, stage.trainer, stage.seed).fit(server_round=2)
        for name, value in model.params().items():
            assert np.array_equal(value - seen.params[name], update.delta[name])


def test_the_same_seed_records_the_same_bytes_and_another_one_does_not(stage, tmp_path):
    for name, which in (("a", stage), ("b", stage), ("c", stage_of("seed=1"))):
        random.seed(name)
        record(which, tmp_path / name)

    files = {n: sorted((tmp_path / n / "transcript").glob("*.safetensors")) for n in "abc"}
    a, b, c = ([seen_bytes(Transcript(tmp_path / n / "transcript"))] for n in "abc")
    assert len(files["a"]) == ROUNDS + 1
    assert a == b
    assert a != c


def seen_bytes(transcript):
    return [
        (o.round, o.recipients, u.node_id, [d.tobytes() for d in u.delta.values()])
        for o in transcript
        for u in o.updates
    ]


def test_sampling_of_clients_follows_the_seed_and_leaves_the_callers_generator_alone(tmp_path):
    some = stage_of("strategy.fraction_train=0.5", "num_clients=6", "num_rounds=4")
    asked = []
    for name in ("a", "b"):
        random.seed(name)
        state = random.getstate()
        record(some, tmp_path / name)
        assert random.getstate() == state
        asked.append([o.recipients for o in Transcript(tmp_path / name / "transcript")])

    assert asked[0] == asked[1]
    assert all(len(r) == 3 for r in asked[0])
    assert len({frozenset(r) for r in asked[0]}) > 1


# what a vantage keeps


def test_a_participants_transcript_holds_no_update_and_no_final_model(stage, tmp_path):
    record(replace(stage, observer=Observer("participant", participant=1)), tmp_path)

    transcript = Transcript(tmp_path / "transcript")
    own = next(n for n, k in Truth.load(tmp_path).nodes.items() if k == 1)
    assert transcript.vantage == "participant"
    assert [o.recipients for o in transcript] == [(own,)] * ROUNDS
    assert transcript.final is None
    assert not (tmp_path / "transcript" / "final.safetensors").exists()
    for file in (tmp_path / "transcript").glob("round_*"):
        assert b"updates/" not in file.read_bytes()


def test_whoever_waits_for_the_final_model_keeps_nothing_else(stage, tmp_path):
    training = record(replace(stage, observer=Observer("final_model")), tmp_path)

    transcript = Transcript(tmp_path / "transcript")
    assert len(transcript) == 0
    assert {f.name for f in transcript.path.iterdir()} == {"meta.json", "final.safetensors"}
    assert all(np.array_equal(transcript.final[k], v) for k, v in training.params.items())


# a run that does not


def test_a_client_that_fails_is_reported_and_the_rounds_go_on(stage, tmp_path):
    training = record(replace(stage, client=Spoiling()), tmp_path)

    transcript = Transcript(tmp_path / "transcript")
    assert training.failure is None
    assert [(f.round, training.nodes[f.node_id]) for f in training.faults] == [(2, 2), (3, 2)]
    assert "out of power" in training.faults[0].reason
    assert [len(o.updates) for o in transcript] == [CLIENTS, CLIENTS - 1, CLIENTS - 1]
    assert [len(o.recipients) for o in transcript] == [CLIENTS] * 3


@pytest.mark.parametrize(
    ("how", "what"), [("nan update", "the update of"), ("nan loss", "the loss (nan)")]
)
def test_divergence_names_client_and_round_and_keeps_what_came_before(stage, tmp_path, how, what):
    training = record(replace(stage, client=Spoiling(how=how)), tmp_path)

    assert training.failure.startswith(f"training diverged: client 2, round 2: {what}")
    assert "\n" not in training.failure
    transcript = Transcript(tmp_path / "transcript")
    assert (transcript.rounds, transcript.final, transcript.damaged) == ((1,), None, ())
    assert training.rounds == 1
    assert all(np.isfinite(v).all() for v in training.params.values())


def test_a_round_in_which_everyone_fails_ends_the_run_in_one_line(stage, tmp_path):
    training = record(replace(stage, client=Spoiling(client=-1)), tmp_path)

    assert training.failure.startswith(f"round 2: none of {CLIENTS} clients answered")
    assert "out of power" in training.failure
    assert Transcript(tmp_path / "transcript").rounds == (1,)
    assert len(training.faults) == CLIENTS


CENTRAL = ["strategy=dp_central", "strategy.epsilon=null", "strategy.noise_multiplier=0.1"]


def test_where_noise_is_released_anyway_a_round_in_which_everyone_fails_ends_nothing(tmp_path):
    private = stage_of(*CENTRAL, "strategy.sampling=poisson", "strategy.rate=0.5")
    training = record(replace(private, client=Spoiling(client=-1)), tmp_path)

    assert training.failure is None
    assert training.rounds == ROUNDS
    asked = {fault.round for fault in training.faults}
    assert asked
    assert asked <= {2, 3}
    assert all("out of power" in fault.reason for fault in training.faults)
    transcript = Transcript(tmp_path / "transcript")
    assert transcript.rounds == (1,)
    sent = transcript[0].params
    assert all(np.abs(training.params[name] - sent[name]).max() > 0 for name in sent)


def test_where_everyone_fails_in_all_rounds_the_first_reason_is_told(tmp_path):
    training = record(replace(stage_of(*CENTRAL), client=Spoiling(client=-1, since=1)), tmp_path)

    assert training.failure.startswith(f"no client answered in any of {ROUNDS} rounds; first reas")
    assert "out of power" in training.failure


def test_an_update_that_is_not_finite_is_divergence_under_central_noise_too(tmp_path):
    training = record(replace(stage_of(*CENTRAL), client=Spoiling(how="nan update")), tmp_path)

    assert training.failure.startswith("training diverged: client 2, round 2: the update of")


@pytest.mark.parametrize("part", ["local_dp", "dp_sgd"])
def test_training_stops_once_all_clients_have_spent_their_budgets(part, tmp_path):
    key = f"client.defenses.{part}"
    given = [f"client/defenses=[{part}]", f"{key}.noise_multiplier=8", "num_rounds=6"]
    free = stage_of(*given, f"{key}.epsilon=null")
    ((_, claim),) = promises.collect(free.stack, free.shard_sizes, 6)
    private = stage_of(*given, f"{key}.epsilon={claim.account.epsilon(2) + 1e-6}")

    training = record(private, tmp_path)

    assert training.failure is None
    assert training.stopped == (3, f"the privacy budgets of all {CLIENTS} clients are spent")
    assert training.rounds == 2
    assert training.participations == {client: [1, 2] for client in range(CLIENTS)}
    transcript = Transcript(tmp_path / "transcript")
    assert transcript.rounds == (1, 2)
    assert all(np.array_equal(transcript.final[k], v) for k, v in training.params.items())
    privacy = promised(private, training)
    assert privacy["stopped"].startswith("before round 3: the privacy budgets of all")
    assert privacy["claims"][0]["rounds"] == 2
    said = f"{CLIENTS} clients are away: the privacy budget is spent"
    assert faults(training) == [{"round": 3, "client": None, "reason": said}]


def test_a_global_model_that_is_not_finite_is_named(stage, tmp_path):
    broken = prepare(stage.config)
    with torch.no_grad():
        next(broken.model.parameters())[0, 0] = torch.nan

    training = record(broken, tmp_path)

    assert training.failure.startswith("round 0: '")
    assert training.failure.endswith("of the global model is not finite")
    assert len(Transcript(tmp_path / "transcript")) == 0


# who is who


class Answering(LocalGrid):
    def __init__(self, numbers, late=0):
        super().__init__(len(numbers), seed=0)
        self.numbers, self.late = numbers, late

    def get_node_ids(self):
        self.late -= 1
        return super().get_node_ids()[: None if self.late < 0 else 1]

    def execute(self, wave, timeout):
        return [self.answer(m, self.numbers[self.partition_of(m)]) for m in wave]

    def answer(self, message, number):
        if number is None:
            return Message(Error(0, "no data"), reply_to=message)
        record = ConfigRecord({"partition-id": number})
        return Message(RecordDict({"config": record}), reply_to=message)


def test_nodes_are_asked_once_all_are_there(monkeypatch):
    monkeypatch.setattr("fedmia.recording._POLL_S", 0)
    grid = Answering([2, 0, 1], late=2)

    assert ask_nodes(grid, 3) == {n: [2, 0, 1][k] for n, k in grid._partitions.items()}


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([0, 1, None], "a client could not be set up: no data"),
        ([0, 1, 1], r"expected clients 0\.\.2, got \[0, 1, 1\]"),
        ([0, 1, 3], r"expected clients 0\.\.2, got \[0, 1, 3\]"),
    ],
)
def test_nodes_that_do_not_make_up_the_federation_are_refused(numbers, said):
    with pytest.raises(RuntimeError, match=said):
        ask_nodes(Answering(numbers), 3)
