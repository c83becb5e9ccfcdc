import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from fedmia.records import KNOWLEDGE, Capability, MaskedInput, Observation, Update, implied
from fedmia.transcript import Transcript, TranscriptError, TranscriptWriter
from fedmia.vantages import Aggregate, FinalModel, MaskedServer, Participant

ALL = frozenset(Capability) - KNOWLEDGE
NAMES = ["z.weight", "a.bias", "steps", "on"]


def params(value):
    """Arrays in an order that is not alphabetical, one of each kind that a model has."""
    return {
        "z.weight": np.full((2, 3), value, dtype=np.float32),
        "a.bias": np.asfortranarray(np.arange(4.0).reshape(2, 2) * value),
        "steps": np.array(int(value), dtype=np.int64),
        "on": np.array([value > 1, True]),
    }


def update(node, shift):
    delta = {
        k: (np.zeros_like(v, np.int8) if v.dtype == bool else v * shift)
        for k, v in params(1).items()
    }
    return Update(node, num_examples=node + 10, delta=delta)


def observation(number, nodes=(5, 8), recipients=(5, 8)):
    return Observation(number, params(number), recipients, tuple(update(n, n) for n in nodes))


def write(path, rounds=3, final=True, nodes=None):
    writer = TranscriptWriter(path, "server", ALL)
    for t in range(1, rounds + 1):
        writer.append(observation(t, *([nodes[t]] if nodes else [])))
    if final:
        writer.finish(params(rounds + 1))
    return writer


def same(a, b):
    return list(a) == list(b) and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and (a[k] == b[k]).all() for k in b
    )


# what is written is what is read


def test_a_round_comes_back_with_names_order_types_and_scalars(tmp_path):
    write(tmp_path)

    transcript = Transcript(tmp_path)
    second = transcript[1]

    assert (transcript.vantage, transcript.shows) == ("server", ALL)
    assert (len(transcript), transcript.rounds, transcript.damaged) == (3, (1, 2, 3), ())
    assert (second.round, second.recipients) == (2, (5, 8))
    assert list(second.params) == NAMES
    assert same(second.params, params(2))
    assert [(u.node_id, u.num_examples) for u in second.updates] == [(5, 15), (8, 18)]
    assert all(same(u.delta, update(u.node_id, u.node_id).delta) for u in second.updates)
    assert same(transcript.final, params(4))


def test_a_transcript_is_a_sequence(tmp_path):
    write(tmp_path)
    transcript = Transcript(tmp_path)

    assert [o.round for o in transcript] == [1, 2, 3]
    assert transcript[-1].round == 3
    assert [o.round for o in transcript[1:]] == [2, 3]
    assert [o.round for o in transcript[::-2]] == [3, 1]
    with pytest.raises(IndexError):
        transcript[3]


def test_a_round_without_updates_comes_back_without(tmp_path):
    TranscriptWriter(tmp_path, "participant", ALL).append(Observation(1, params(1), (5,)))

    (seen,) = Transcript(tmp_path)

    assert seen.updates == ()
    assert seen.recipients == (5,)


def test_large_node_ids_stay_exact(tmp_path):
    node = 2**62 + 1
    writer = TranscriptWriter(tmp_path, "server", ALL)
    writer.append(Observation(1, params(1), (node,), (update(node, 1),)))

    assert Transcript(tmp_path).node_ids == (node,)


def test_partial_participation_keeps_who_was_asked_apart_from_who_answered(tmp_path):
    write(tmp_path, nodes={1: (8,), 2: (5, 8), 3: ()})

    transcript = Transcript(tmp_path)

    assert [[u.node_id for u in o.updates] for o in transcript] == [[8], [5, 8], []]
    assert all(o.recipients == (5, 8) for o in transcript)
    assert transcript.node_ids == (5, 8)


def words(*numbers, dtype=np.uint32):
    return tuple(
        MaskedInput(n, np.array([i, 3, np.iinfo(dtype).max - i], dtype))
        for i, n in enumerate(numbers)
    )


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_masked_words_come_back_to_the_bit(tmp_path, dtype):
    where = MaskedServer("secagg_plus")
    writer = TranscriptWriter(tmp_path, where.name, where.shows, where.hides_updates)
    sent = words(5, 2**62 + 1, dtype=dtype)
    writer.append(Observation(1, params(1), (5, 8, 2**62 + 1), masked=sent))
    writer.append(Observation(2, params(2), (5, 8)))

    transcript = Transcript(tmp_path)
    first, second = transcript

    assert (transcript.vantage, transcript.hides_updates) == ("server", "secagg_plus")
    assert (transcript.shows, transcript.node_ids) == (where.shows, ())
    assert [m.node_id for m in first.masked] == [5, 2**62 + 1]
    for got, there in zip(first.masked, sent, strict=True):
        assert got.words.dtype == dtype
        assert got.words.tolist() == there.words.tolist()
    assert (first.updates, first.recipients) == ((), (5, 8, 2**62 + 1))
    assert (second.masked, second.updates) == ((), ())
    assert same(first.params, params(1))
    assert first.aggregate["steps"] == 1


def test_transcripts_from_before_there_were_masks_are_read(tmp_path):
    write(tmp_path)
    meta = json.loads((tmp_path / "meta.json").read_text())
    del meta["hides_updates"]
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    for file in tmp_path.glob("round_*"):
        with safe_open(file, framework="np") as stored:
            arrays = {k: stored.get_tensor(k) for k in stored.keys()}  # noqa: SIM118
            facts = {k: v for k, v in stored.metadata().items() if k != "masked"}
        save_file(arrays, file, metadata=facts)

    transcript = Transcript(tmp_path)

    assert (transcript.rounds, transcript.damaged) == ((1, 2, 3), ())
    assert transcript.hides_updates == ""
    assert [o.masked for o in transcript] == [()] * 3
    assert [len(o.updates) for o in transcript] == [2] * 3


def test_an_existing_transcript_is_not_overwritten(tmp_path):
    write(tmp_path)

    with pytest.raises(TranscriptError, match="already holds"):
        TranscriptWriter(tmp_path, "server", ALL)

    assert len(Transcript(tmp_path)) == 3


# the aggregate


def test_the_aggregate_is_the_next_model_minus_this_one(tmp_path):
    write(tmp_path)

    for seen in Transcript(tmp_path):
        following = params(seen.round + 1)
        assert list(seen.aggregate) == NAMES
        for name, change in seen.aggregate.items():
            step = following[name].astype(float) - seen.params[name].astype(float)
            assert np.array_equal(change.astype(float), step)


def test_a_switch_that_flips_is_a_change_of_plus_or_minus_one(tmp_path):
    writer = TranscriptWriter(tmp_path, "server", ALL)
    for t, on in enumerate([[False, True], [True, False], [True, False]], start=1):
        writer.append(Observation(t, {"on": np.array(on)}, (5,)))

    first, second, _ = Transcript(tmp_path)

    assert first.aggregate["on"].tolist() == [1, -1]
    assert second.aggregate["on"].tolist() == [0, 0]


def test_the_last_round_has_no_aggregate_before_the_run_is_finished(tmp_path):
    writer = write(tmp_path, final=False)
    transcript = Transcript(tmp_path)
    assert transcript[-1].aggregate is None
    assert transcript.final is None

    assert transcript.summed == (True, True, False)

    writer.finish(params(4))

    assert transcript[-1].aggregate["steps"] == 1
    assert transcript.summed == (True, True, True)


def test_rounds_with_a_gap_between_them_have_no_aggregate(tmp_path):
    write(tmp_path)
    (tmp_path / "round_00002.safetensors").unlink()

    first, third = Transcript(tmp_path)

    assert (first.round, first.aggregate) == (1, None)
    assert third.aggregate is not None
    assert Transcript(tmp_path).summed == (False, True)


def test_a_final_model_is_not_taken_for_the_one_after_a_lost_round(tmp_path):
    write(tmp_path)
    (tmp_path / "round_00003.safetensors").write_bytes(b"")

    transcript = Transcript(tmp_path)

    assert transcript.rounds == (1, 2)
    assert transcript[1].aggregate is None
    assert transcript.final is not None


# while it grows, and after a crash


def test_rounds_appear_one_by_one_while_the_run_goes_on(tmp_path):
    writer = TranscriptWriter(tmp_path, "server", ALL)
    transcript = Transcript(tmp_path)
    assert (len(transcript), transcript.node_ids, transcript.final) == (0, (), None)

    for t in (1, 2):
        writer.append(observation(t))
        assert len(transcript) == t - 1
        transcript.refresh()
        assert transcript.rounds[-1] == t
    assert transcript[0].aggregate is not None


def test_a_half_written_file_is_not_a_round(tmp_path):
    write(tmp_path, rounds=2, final=False)
    whole = (tmp_path / "round_00002.safetensors").read_bytes()
    (tmp_path / "round_00003.safetensors.partial").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "final.safetensors.partial").write_bytes(whole[:10])

    transcript = Transcript(tmp_path)

    assert (transcript.rounds, transcript.damaged, transcript.final) == ((1, 2), (), None)


def test_a_write_that_fails_leaves_no_round_behind(tmp_path):
    writer = write(tmp_path, rounds=1, final=False)
    uneven = (update(5, 1), Update(8, 1, {k: np.zeros(7) for k in NAMES}))

    with pytest.raises(ValueError, match="shape"):
        writer.append(Observation(2, params(2), (5, 8), uneven))

    assert Transcript(tmp_path).rounds == (1,)


def damage(kind, file):
    whole = file.read_bytes()
    flipped = whole.replace(b'"node_ids"', b'"node_xxx"').replace(b'"names"', b'"nomen"')
    if kind == "of another program":
        save_file({"weight": np.zeros(3)}, file)
        return
    file.write_bytes({
        "empty": b"",
        "truncated": whole[:-5],
        "half a header": whole[:40],
        "garbage": bytes(range(256)) * 8,
        "too long": whole + b"extra",
        "header altered": flipped,
    }[kind])  # fmt: skip


KINDS = [
    "empty",
    "truncated",
    "half a header",
    "garbage",
    "too long",
    "header altered",
    "of another program",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_round_is_named_and_the_others_stay_usable(tmp_path, kind):
    write(tmp_path)
    damage(kind, tmp_path / "round_00002.safetensors")

    transcript = Transcript(tmp_path)

    (named,) = transcript.damaged
    assert named.startswith("round_00002.safetensors: ")
    assert "\n" not in named
    assert transcript.rounds == (1, 3)
    assert same(transcript[1].params, params(3))
    assert transcript.node_ids == (5, 8)
    assert transcript.through("participant", Participant.shows, Participant(5).view).rounds == (
        1,
        3,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_final_model_is_named_and_counts_as_missing(tmp_path, kind):
    write(tmp_path)
    damage(kind, tmp_path / "final.safetensors")

    transcript = Transcript(tmp_path)

    assert [name.partition(":")[0] for name in transcript.damaged] == ["final.safetensors"]
    assert transcript.final is None
    assert transcript.rounds == (1, 2, 3)
    assert transcript[-1].aggregate is None


def test_a_file_that_is_no_round_is_left_alone(tmp_path):
    write(tmp_path)
    whole = (tmp_path / "round_00001.safetensors").read_bytes()
    (tmp_path / "round_copy.safetensors").write_bytes(whole)
    (tmp_path / "round_00001_2.safetensors").write_bytes(whole)

    assert Transcript(tmp_path).rounds == (1, 2, 3)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"null",
        b"\xff\xfe\x00",
        b"{}",
        b'{"schema": 1, "vantage": "server"}',
        b'{"schema": 1, "vantage": "server", "shows": ["NO_SUCH_POWER"]}',
        b'{"schema": 1, "vantage": "server", "shows": 5}',
        b'{"schema": 999, "vantage": "server", "shows": []}',
    ],
    ids=str,
)
def test_a_damaged_description_is_named_in_one_line(tmp_path, content):
    write(tmp_path)
    (tmp_path / "meta.json").write_bytes(content)

    with pytest.raises(TranscriptError, match=r"meta\.json") as caught:
        Transcript(tmp_path)

    assert "\n" not in str(caught.value)


def test_a_folder_without_a_transcript_is_named(tmp_path):
    with pytest.raises(TranscriptError, match=r"nowhere: no transcript here"):
        Transcript(tmp_path / "nowhere")


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(TranscriptError, match="file"):
        Transcript(tmp_path / "file")


def test_the_description_appears_whole_or_not_at_all(tmp_path):
    TranscriptWriter(tmp_path, "server", ALL)

    assert [f.name for f in tmp_path.iterdir()] == ["meta.json"]
    assert json.loads((tmp_path / "meta.json").read_text())["vantage"] == "server"


# what a narrower vantage is left with


def narrow(path, vantage):
    wide = Transcript(path)
    return wide.through(vantage.name, vantage.shows, vantage.view, vantage.hides_updates)


def test_a_participant_sees_models_of_its_own_rounds_and_no_more(tmp_path):
    writer = TranscriptWriter(tmp_path, "server", ALL)
    for t, recipients in enumerate([(5, 8), (8,), (5, 8), (5,)], start=1):
        writer.append(observation(t, recipients, recipients))
    writer.finish(params(5))

    seen = narrow(tmp_path, Participant(5))

    assert (seen.vantage, seen.shows) == ("participant", Participant.shows)
    assert seen.rounds == (1, 3, 4)
    assert [o.recipients for o in seen] == [(5,)] * 3
    assert [o.updates for o in seen] == [()] * 3
    assert seen.final is None
    # only between rounds 3 and 4 did it see both models
    assert [o.aggregate is not None for o in seen] == [False, True, False]
    assert seen.summed == (False, True, False)
    assert same(seen[2].params, params(4))


def test_a_participant_names_no_node_whose_update_it_never_saw(tmp_path):
    write(tmp_path)

    assert narrow(tmp_path, Participant(5)).node_ids == ()


@pytest.mark.parametrize("masked", [False, True], ids=["updates", "masked words"])
def test_who_sees_the_aggregate_sees_every_sum_and_nobody(tmp_path, masked):
    where = MaskedServer("secagg_plus")
    shows, hides = (where.shows, where.hides_updates) if masked else (ALL, "")
    writer = TranscriptWriter(tmp_path, "server", shows, hides)
    for t in (1, 2, 3):
        seen = observation(t)
        writer.append(Observation(t, seen.params, (5, 8), masked=words(5, 8)) if masked else seen)
    writer.finish(params(4))

    seen = narrow(tmp_path, Aggregate())

    assert (seen.vantage, seen.shows) == ("aggregate", Aggregate.shows)
    assert (seen.rounds, seen.node_ids, seen.hides_updates) == ((1, 2, 3), (), "")
    assert [(o.recipients, o.updates, o.masked) for o in seen] == [((), (), ())] * 3
    assert [o.aggregate["steps"].item() for o in seen] == [1, 1, 1]
    assert same(seen.final, params(4))


def test_whoever_gets_the_final_model_sees_nothing_else(tmp_path):
    write(tmp_path)

    seen = narrow(tmp_path, FinalModel())

    assert (len(seen), seen.rounds, seen.node_ids) == (0, (), ())
    assert same(seen.final, params(4))
    assert seen.shows == FinalModel.shows


def test_narrowing_leaves_the_wider_transcript_as_it_was(tmp_path):
    write(tmp_path)
    wide = Transcript(tmp_path)

    wide.through("final_model", FinalModel.shows, FinalModel().view)

    assert wide.rounds == (1, 2, 3)
    assert wide.vantage == "server"
    assert len(wide[0].updates) == 2


def test_narrowing_never_adds_a_power(tmp_path):
    TranscriptWriter(tmp_path, "final_model", FinalModel.shows)

    seen = Transcript(tmp_path).through("server", ALL, lambda o: o)

    assert seen.shows == implied(FinalModel.shows)


def test_a_narrowed_transcript_stays_narrow_when_refreshed(tmp_path):
    writer = write(tmp_path, final=False)
    seen = narrow(tmp_path, Participant(5))
    writer.append(observation(4, (8,), (8,)))
    writer.append(observation(5))

    seen.refresh()

    assert seen.rounds == (1, 2, 3, 5)
    assert seen[3].updates == ()
