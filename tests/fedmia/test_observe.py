import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedmia.arrays import to_record
from fedmia.grid.base import LocalGrid
from fedmia.observe import (
    ABSENT,
    SPENT,
    BudgetSpentError,
    DivergedError,
    EveryClientFailedError,
    Fault,
    ObservedGrid,
)
from fedmia.records import MASKED, PAYLOAD, WORDS

SENT = {
    "w": np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32),
    "steps": np.array(7, dtype=np.int64),
    "on": np.array([True, False]),
}


class Scripted(LocalGrid):
    """A grid whose clients answer what a test wants them to."""

    def __init__(self, answer, num_clients=3):
        super().__init__(num_clients, seed=0)
        self.answer = answer
        self.shuffle = list
        self.sent = []

    def execute(self, wave, timeout):
        self.sent += wave
        return [self.answer(self.partition_of(m), m) for m in wave]

    def pull_messages(self, message_ids, timeout=None):
        return self.shuffle(super().pull_messages(message_ids, timeout))


def ask(grid, kind="train", content=None, nodes=None):
    content = content or RecordDict(
        {"arrays": to_record(SENT), "config": ConfigRecord({"server-round": 1})}
    )
    return [Message(content, node, kind) for node in nodes or grid.get_node_ids()]


def answer(client, message):
    """Client k moves w by k + 1 halves, counts two steps on, and turns a switch on."""
    arrays = {
        "w": SENT["w"] + np.float32((client + 1) / 2),
        "steps": SENT["steps"] + 2,
        "on": np.array([True, True]),
    }
    metrics = MetricRecord({"num-examples": 10 + client, "train-loss": 0.5})
    return Message(RecordDict({"arrays": to_record(arrays), "m": metrics}), reply_to=message)


def refuse(message, reason="no power", src_node_id=None):
    reply = Message(Error(0, reason), reply_to=message)
    if src_node_id is not None:
        reply.metadata.__dict__["_src_node_id"] = src_node_id
    return reply


def watch(reply, num_clients=3):
    grid, seen = Scripted(reply, num_clients), []
    return grid, ObservedGrid(grid, seen.append), seen


# what is observed


def test_deltas_are_what_each_node_moved_exactly():
    grid, observed, seen = watch(answer)

    observed.send_and_receive(ask(grid))

    (observation,) = seen
    nodes = grid.get_node_ids()
    assert observation.round == 1
    assert observation.recipients == tuple(nodes)
    assert list(observation.params) == list(SENT)
    assert all(np.array_equal(observation.params[k], SENT[k]) for k in SENT)
    assert [u.node_id for u in observation.updates] == nodes
    for update in observation.updates:
        client = grid._partitions[update.node_id]
        assert update.num_examples == 10 + client
        assert list(update.delta) == list(SENT)
        assert update.delta["w"].tolist() == [[(client + 1) / 2] * 2] * 2
        assert update.delta["w"].dtype == np.float32
        assert update.delta["steps"] == 2
        assert update.delta["steps"].shape == ()
        assert update.delta["on"].tolist() == [0, 1]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]], ids=str)
def test_the_order_of_replies_does_not_matter(order):
    grid, observed, seen = watch(answer)
    grid.shuffle = lambda replies: [replies[i] for i in order]

    observed.send_and_receive(ask(grid))

    assert [u.node_id for u in seen[0].updates] == grid.get_node_ids()
    moved = {grid._partitions[u.node_id]: u.delta["w"][0, 0] for u in seen[0].updates}
    assert moved == {0: 0.5, 1: 1.0, 2: 1.5}


def test_rounds_are_counted_from_one():
    grid, observed, seen = watch(answer)

    for _ in range(3):
        observed.send_and_receive(ask(grid))

    assert [o.round for o in seen] == [1, 2, 3]


def test_each_node_is_compared_with_the_model_that_it_was_sent():
    grid, observed, seen = watch(answer)
    first, second, _ = grid.get_node_ids()
    other = RecordDict({"arrays": to_record({**SENT, "w": SENT["w"] + np.float32(10)})})

    observed.send_and_receive(ask(grid, nodes=[first]) + ask(grid, content=other, nodes=[second]))

    moved = {grid._partitions[u.node_id]: u.delta["w"][0, 0] for u in seen[0].updates}
    client = grid._partitions[second]
    assert moved[client] == (client + 1) / 2 - 10
    assert moved[grid._partitions[first]] == (grid._partitions[first] + 1) / 2


def test_a_reply_without_metrics_is_an_update_all_the_same():
    def bare(client, message):
        return Message(RecordDict({"arrays": to_record(SENT)}), reply_to=message)

    grid, observed, seen = watch(bare)
    observed.send_and_receive(ask(grid))

    assert [u.num_examples for u in seen[0].updates] == [0, 0, 0]
    assert not seen[0].updates[0].delta["w"].any()


@pytest.mark.parametrize("kind", ["evaluate", "query", "query.partition", "evaluate.extra"])
def test_other_messages_are_not_observed(kind):
    grid, observed, seen = watch(answer)

    replies = observed.send_and_receive(ask(grid, kind))

    assert len(list(replies)) == 3
    assert seen == []


def test_a_named_train_message_is_observed():
    grid, observed, seen = watch(answer)

    observed.send_and_receive(ask(grid, "train.masked"))

    assert len(seen) == 1


def test_errors_in_evaluation_are_no_faults_of_a_training_round():
    grid, observed, _ = watch(lambda client, message: refuse(message))

    observed.send_and_receive(ask(grid, "evaluate"))

    assert observed.faults == []


def test_a_round_in_which_nobody_is_asked_is_none():
    _, observed, seen = watch(answer)

    assert list(observed.send_and_receive([])) == []
    assert seen == []


# what passes


@pytest.mark.parametrize("path", ["send_and_receive", "push and pull"])
def test_messages_and_replies_pass_unchanged_and_are_the_same_objects(path):
    made = []

    def remember(client, message):
        made.append(answer(client, message))
        return made[-1]

    grid, observed, _ = watch(remember)
    messages = ask(grid)
    before = [{k: a.data for k, a in m.content.array_records["arrays"].items()} for m in messages]

    replies = exchange(observed, messages, path)

    assert all(a is b for a, b in zip(grid.sent, messages, strict=True))
    assert all(a is b for a, b in zip(replies, made, strict=True))
    for message, bytes_before in zip(messages, before, strict=True):
        arrays = message.content.array_records["arrays"]
        assert {k: a.data for k, a in arrays.items()} == bytes_before


def exchange(observed, messages, path):
    if path == "send_and_receive":
        return list(observed.send_and_receive(messages))
    return list(observed.pull_messages(observed.push_messages(messages)))


def test_pushing_and_pulling_shows_what_sending_and_receiving_does():
    def some(client, message):
        return refuse(message) if client == 1 else answer(client, message)

    results = []
    for path in ("send_and_receive", "push and pull"):
        grid, observed, seen = watch(some)
        exchange(observed, ask(grid, "query"), path)
        exchange(observed, ask(grid), path)
        results.append((seen, observed.faults))

    (one, faults), (other, other_faults) = results
    assert faults == other_faults
    assert faults
    assert [describe(o) for o in one] == [describe(o) for o in other]
    assert len(one) == 1


def describe(o):
    updates = [
        (u.node_id, u.num_examples, {k: d.tolist() for k, d in u.delta.items()}) for u in o.updates
    ]
    return o.round, o.recipients, {k: p.tolist() for k, p in o.params.items()}, updates


def test_replies_pulled_one_by_one_make_up_one_round():
    grid, observed, seen = watch(answer)
    ids = observed.push_messages(ask(grid))
    for message_id in ids:
        assert not seen
        observed.pull_messages([message_id])
    assert [describe(o)[:2] for o in seen] == [(1, tuple(grid.get_node_ids()))]
    assert len(seen[0].updates) == 3


def test_a_round_with_a_silent_node_is_observed_with_the_next_push():
    grid, observed, seen = watch(answer)
    ids = observed.push_messages(ask(grid))
    observed.pull_messages(ids[:2])
    assert not seen
    observed.push_messages(ask(grid))
    assert len(seen[0].recipients) == 3
    assert len(seen[0].updates) == 2


def test_a_round_is_numbered_as_its_messages_say_and_never_twice():
    grid, observed, seen = watch(answer)
    for stated in (1, 4, 4):
        config = ConfigRecord({"server-round": stated})
        content = RecordDict({"arrays": to_record(SENT), "config": config})
        observed.send_and_receive(ask(grid, content=content))
    assert [o.round for o in seen] == [1, 4, 5]


def test_a_generator_of_messages_reaches_the_grid_whole():
    grid, observed, seen = watch(answer)

    observed.send_and_receive(m for m in ask(grid))

    assert len(grid.sent) == 3
    assert len(seen[0].updates) == 3


def test_the_timeout_reaches_the_grid():
    grid, observed, _ = watch(answer)
    asked = []
    execute = grid.execute
    grid.execute = lambda wave, timeout: (asked.append(timeout), execute(wave, timeout))[1]

    observed.send_and_receive(ask(grid), timeout=12.5)

    assert asked == [12.5]


def test_the_rest_of_the_grid_is_the_inner_one():
    grid, observed, _ = watch(answer)

    assert observed.run is grid.run
    assert list(observed.get_node_ids()) == grid.get_node_ids()
    message = observed.create_message(RecordDict(), "query", 5, "1")
    assert message.metadata.dst_node_id == 5


# what goes wrong


def test_a_client_that_fails_is_a_fault_and_no_update():
    grid, observed, seen = watch(
        lambda client, message: refuse(message) if client == 1 else answer(client, message)
    )
    failing = next(node for node, client in grid._partitions.items() if client == 1)

    observed.send_and_receive(ask(grid))

    assert observed.faults == [Fault(1, failing, "no power")]
    assert failing in seen[0].recipients
    assert failing not in [u.node_id for u in seen[0].updates]
    assert len(seen[0].updates) == 2


def test_the_error_of_an_offline_node_is_told_by_the_message_it_answers():
    grid, observed, _ = watch(
        lambda client, message: (
            refuse(message, "offline", src_node_id=1) if client == 2 else answer(client, message)
        )
    )
    offline = next(node for node, client in grid._partitions.items() if client == 2)

    observed.send_and_receive(ask(grid))

    assert observed.faults == [Fault(1, offline, "offline")]


def test_an_error_without_a_reason_says_its_code():
    def wordless(client, message):
        return Message(Error(3), reply_to=message) if client else answer(client, message)

    grid, observed, _ = watch(wordless)
    observed.send_and_receive(ask(grid))

    assert [f.reason for f in observed.faults] == ["error 3", "error 3"]


def test_a_client_that_never_answers_was_asked_all_the_same():
    grid, observed, seen = watch(answer)
    silent = next(node for node, client in grid._partitions.items() if client == 0)
    grid.shuffle = lambda replies: [r for r in replies if r.metadata.src_node_id != silent]

    observed.send_and_receive(ask(grid))

    assert silent in seen[0].recipients
    assert [u.node_id for u in seen[0].updates] == [n for n in grid.get_node_ids() if n != silent]
    assert observed.faults == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("path", ["send_and_receive", "push and pull"])
def test_an_update_that_is_not_finite_names_node_and_round_before_it_is_recorded(bad, path):
    diverging = []

    def some(client, message):
        reply = answer(client, message)
        if client == 1 and len(diverging) == 1:
            arrays = {**SENT, "w": SENT["w"].copy()}
            arrays["w"][1, 1] = bad
            reply.content["arrays"] = to_record(arrays)
        return reply

    grid, observed, seen = watch(some)
    exchange(observed, ask(grid), path)
    diverging.append(True)

    with pytest.raises(DivergedError, match="round 2: the update of 'w' is not finite") as caught:
        exchange(observed, ask(grid), path)

    assert grid._partitions[caught.value.node_id] == 1
    assert caught.value.round == 2
    assert [o.round for o in seen] == [1]


def test_infinities_of_both_signs_do_not_cancel():
    def some(client, message):
        reply = answer(client, message)
        reply.content["arrays"] = to_record({"w": np.array([[np.inf, -np.inf], [0, 0]])})
        return reply

    grid, observed, _ = watch(some)

    with pytest.raises(DivergedError):
        observed.send_and_receive(ask(grid))


def test_large_finite_values_are_no_divergence_though_their_sum_overflows():
    def some(client, message):
        reply = answer(client, message)
        reply.content["arrays"] = to_record({"w": np.full((2, 2), 3e38, np.float32)})
        return reply

    grid, observed, seen = watch(some)
    observed.send_and_receive(ask(grid))

    assert len(seen) == 1


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_a_divergence(loss):
    def some(client, message):
        reply = answer(client, message)
        if client == 2:
            reply.content["m"]["train-loss"] = loss
        return reply

    grid, observed, seen = watch(some)

    with pytest.raises(DivergedError, match="the loss") as caught:
        observed.send_and_receive(ask(grid))

    assert grid._partitions[caught.value.node_id] == 2
    assert seen == []


def test_a_round_in_which_everyone_fails_ends_the_run_with_the_first_reason():
    grid, observed, seen = watch(lambda client, message: refuse(message, f"reason {client}"))

    with pytest.raises(EveryClientFailedError, match="round 1: none of 3 clients") as caught:
        observed.send_and_receive(ask(grid))

    assert str(caught.value).endswith(f"reason {grid._partitions[grid.get_node_ids()[0]]}")
    assert len(observed.faults) == 3
    assert seen == []


def test_a_strategy_that_abandons_rounds_lives_on_after_one_in_which_everyone_fails():
    grid, seen = Scripted(lambda client, message: refuse(message), 3), []
    observed = ObservedGrid(grid, seen.append, abandons=True)

    assert len(list(observed.send_and_receive(ask(grid)))) == 3
    assert len(observed.faults) == 3
    assert seen == []


@pytest.mark.parametrize("abandons", [False, True])
def test_training_ends_once_every_node_has_spent_its_budget(abandons):
    grid = Scripted(lambda client, message: refuse(message, f"{ABSENT}: {SPENT}: epsilon=8"), 3)
    observed = ObservedGrid(grid, print, abandons=abandons)
    first, *others = grid.get_node_ids()

    observed.send_and_receive(ask(grid, nodes=[first]))
    observed.send_and_receive(ask(grid, nodes=[others[0], first]))
    with pytest.raises(BudgetSpentError, match="budgets of all 3 clients are spent") as caught:
        observed.send_and_receive(ask(grid, nodes=others))
    assert caught.value.round == 3


def test_training_goes_on_while_a_client_is_away_for_another_reason_or_answers():
    reasons = {0: f"{ABSENT}: {SPENT}", 1: f"{ABSENT}: {SPENT}", 2: ABSENT}
    grid, observed, seen = watch(lambda client, message: refuse(message, reasons[client]))
    observed.send_and_receive(ask(grid))
    grid.answer = lambda client, message: (
        answer(client, message) if client == 2 else refuse(message, reasons[client])
    )
    observed.send_and_receive(ask(grid))
    assert [len(o.updates) for o in seen] == [1]


def test_a_node_that_took_part_and_is_gone_may_have_budget_left():
    grid, observed, _ = watch(answer)
    observed.send_and_receive(ask(grid))
    gone, *left = grid.get_node_ids()
    grid.get_node_ids = lambda: left
    grid.answer = lambda client, message: refuse(message, f"{ABSENT}: {SPENT}")
    observed.send_and_receive(ask(grid))
    with pytest.raises(BudgetSpentError):
        observed.send_and_receive(ask(grid, nodes=[gone]))


def test_the_first_reason_is_one_of_this_round_even_if_fewer_answer_than_were_asked():
    def some(client, message):
        return refuse(message, "early") if client == 0 else answer(client, message)

    grid, observed, _ = watch(some)
    observed.send_and_receive(ask(grid))
    grid.send_and_receive = lambda messages, timeout=None: [refuse(messages[0], "late")]

    with pytest.raises(EveryClientFailedError, match="first reason: late"):
        observed.send_and_receive(ask(grid))


def test_silence_of_everyone_is_said_to_be_one():
    grid, observed, _ = watch(answer)
    grid.send_and_receive = lambda messages, timeout=None: []

    with pytest.raises(EveryClientFailedError, match="no replies"):
        observed.send_and_receive(ask(grid))


def test_a_reply_without_arrays_moved_nothing_that_is_known():
    grid, observed, seen = watch(
        lambda client, message: Message(RecordDict({"a": ArrayRecord()}), reply_to=message)
    )

    observed.send_and_receive(ask(grid))

    assert [dict(u.delta) for u in seen[0].updates] == [{}, {}, {}]


# masked replies


def mask(words, message):
    arrays = to_record({WORDS: np.asarray(words)})
    return Message(RecordDict({MASKED: arrays, "m": MetricRecord({"n": 1})}), reply_to=message)


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
@pytest.mark.parametrize("path", ["send_and_receive", "push and pull"])
def test_a_round_of_masked_replies_is_complete_and_holds_no_update(dtype, path):
    top = np.iinfo(dtype).max  # as float bits: a NaN
    grid, observed, seen = watch(lambda client, m: mask(np.array([client, top], dtype), m))
    grid.shuffle = lambda replies: replies[::-1]

    exchange(observed, ask(grid), path)

    (observation,) = seen
    nodes = grid.get_node_ids()
    assert observation.updates == ()
    assert observation.recipients == tuple(nodes)
    assert [m.node_id for m in observation.masked] == nodes
    assert [m.words.tolist() for m in observation.masked] == [
        [grid._partitions[n], top] for n in nodes
    ]
    assert {m.words.dtype for m in observation.masked} == {np.dtype(dtype)}
    assert all(np.array_equal(observation.params[k], SENT[k]) for k in SENT)
    assert observed.rounds_seen == 1
    assert observed.faults == []


def test_masked_replies_and_updates_are_told_apart():
    def some(client, message):
        return mask(np.zeros(4, np.uint32), message) if client == 1 else answer(client, message)

    grid, observed, seen = watch(some)
    observed.send_and_receive(ask(grid))

    masked = [m.node_id for m in seen[0].masked]
    assert [grid._partitions[n] for n in masked] == [1]
    assert sorted(grid._partitions[u.node_id] for u in seen[0].updates) == [0, 2]


def test_a_client_that_fails_leaves_the_words_of_the_others():
    def some(client, message):
        return refuse(message) if client == 2 else mask(np.zeros(4, np.uint32), message)

    grid, observed, seen = watch(some)
    observed.send_and_receive(ask(grid))

    assert sorted(grid._partitions[m.node_id] for m in seen[0].masked) == [0, 1]
    assert [fault.reason for fault in observed.faults] == ["no power"]


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ({MASKED: to_record({WORDS: np.zeros(3, np.uint32)})}, "3 of uint32"),
        ({MASKED: to_record({WORDS: np.zeros(4, np.uint64)})}, "4 of uint64"),
        ({MASKED: to_record({WORDS: np.zeros((2, 2), np.uint32)})}, "none"),
        ({MASKED: to_record({WORDS: np.zeros(4, np.float32)})}, "none"),
        ({MASKED: to_record({"other": np.zeros(4, np.uint32)})}, "none"),
        ({MASKED: ConfigRecord({WORDS: 4})}, "none"),
    ],
    ids=["shorter", "wider", "a matrix", "floats", "no words", "no arrays"],
)
def test_words_unlike_those_of_the_others_are_a_fault_of_their_sender(content, got):
    def some(client, message):
        if client == 0:
            return Message(RecordDict(content), reply_to=message)
        return mask(np.zeros(4, np.uint32), message)

    grid, observed, seen = watch(some)
    observed.send_and_receive(ask(grid))

    (fault,) = observed.faults
    assert grid._partitions[fault.node_id] == 0
    assert fault.reason == f"masked words: expected 4 of uint32, got {got}"
    assert sorted(grid._partitions[m.node_id] for m in seen[0].masked) == [1, 2]


def test_a_round_in_which_nobody_sent_words_under_the_mask_ends_the_run():
    grid, observed, seen = watch(lambda client, m: mask(np.zeros(4), m))

    with pytest.raises(EveryClientFailedError, match="expected 1-d, uint32 or uint64, got none"):
        observed.send_and_receive(ask(grid))

    assert seen == []


def test_a_loss_beside_the_words_must_be_finite():
    def some(client, message):
        reply = mask(np.zeros(4, np.uint32), message)
        reply.content["m"]["train-loss"] = float("nan")
        return reply

    grid, observed, _ = watch(some)

    with pytest.raises(DivergedError, match="the loss"):
        observed.send_and_receive(ask(grid))


# how many bytes


def test_answers_count_as_their_arrays_or_as_their_senders_state():
    def some(client, message):
        reply = answer(client, message)
        if client < 2:
            reply.content["m"][PAYLOAD] = [5, -1][client]
        return reply

    grid, observed, _ = watch(some)
    observed.send_and_receive(ask(grid))
    observed.send_and_receive(ask(grid, kind="evaluate"))

    dense = 4 * 4 + 8 + 2
    assert sorted(observed.answer_bytes) == [5, dense, dense]  # a negative number is none


def test_words_count_and_errors_do_not():
    def some(client, message):
        return refuse(message) if client else mask(np.zeros(6, np.uint64), message)

    grid, observed, _ = watch(some)
    observed.send_and_receive(ask(grid))

    assert observed.answer_bytes == [48]
